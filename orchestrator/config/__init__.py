"""SweepConfig: reading, checking, overriding and writing a sweep's YAML."""
