"""Tests of trainables/preflight."""
