"""Trackers (MLflow) and their synchronisation with the run folder."""
