"""Measurements whose figures are in docs/; each file is a program of its own."""
