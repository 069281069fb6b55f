"""Ways to adapt a base model; one small class per method, its fields are its hyperparameters."""
