"""Processes that run trials: the Ray host, distributed trials, heartbeats."""
