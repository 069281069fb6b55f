"""A trial as a value: hyperparameters, their constraints, the spec and its events."""
