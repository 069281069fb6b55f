"""A running sweep: driver, Tune loop, signals, limits, display."""
