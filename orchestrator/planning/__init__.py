"""From a configuration to a trial: sources, capacity, forecasts, dry run."""
