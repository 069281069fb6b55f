"""A running sweep: driver, set-up, Tune loop, signals, limits, display, tracking."""
