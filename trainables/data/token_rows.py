"""TokenRows: rows of a prompt and a completion, which of their tokens have a loss, and what does
not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TokenRows:
    """`learned` are the places of a prompt's tokens that have a loss; () if no prompt has any."""

    prompts: Sequence[Sequence[int]]
    completions: Sequence[Sequence[int]]
    learned: Sequence[tuple[range, ...]]

    def __len__(self) -> int:
        return len(self.prompts)

    def length(self, index: int) -> int:
        return len(self.prompts[index]) + len(self.completions[index])

    def counted(self, index: int) -> tuple[range, ...]:
        """The places of a row's tokens that have a loss."""
        completion = range(len(self.prompts[index]), self.length(index))
        return (*(self.learned[index] if self.learned else ()), completion)

    def counted_tokens(self, indices: Sequence[int]) -> int:
        """How many tokens of these rows have a loss."""
        return sum(len(span) for index in indices for span in self.counted(index))


@dataclass(frozen=True)
class TooLong:
    """An example that does not fit, and the tokens that it needs without any context; or one that
    does not fit with all of its shots, and the tokens that it needs with them."""

    example_id: str
    tokens: int
