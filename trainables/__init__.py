"""The worker: trains and evaluates one trial. Knows nothing of the driver or its trackers."""
