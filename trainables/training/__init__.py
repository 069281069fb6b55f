"""The training loop, engines, checkpoints and process groups."""
