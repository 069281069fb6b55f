"""The two embedded base models, and what made them."""
