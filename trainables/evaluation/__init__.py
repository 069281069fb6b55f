"""Loss, generation and scoring of a model on a split."""
