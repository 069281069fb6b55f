"""Fixtures of the tests of decode: a tiny base with random weights."""

from tests.tiny_models import tiny_llama

__all__ = ["tiny_llama"]
