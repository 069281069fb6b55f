"""Measurements whose figures stand in docs/; each file runs by itself."""
