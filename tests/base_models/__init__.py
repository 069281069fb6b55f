"""Tests of the embedded base models."""
