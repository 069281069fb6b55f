"""Which trial runs next: queue, samplers, schedulers, learned feasibility."""
