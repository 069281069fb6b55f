"""The two embedded base models, and the code that pre-trains them."""
