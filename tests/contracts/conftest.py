"""Fixtures of the contract tests: tiny bases with random weights."""

from tests.tiny_models import tiny_chat_llama, tiny_gpt_neox, tiny_llama

__all__ = ["tiny_chat_llama", "tiny_gpt_neox", "tiny_llama"]
