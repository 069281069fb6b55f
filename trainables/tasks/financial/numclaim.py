"""NumClaim: whether a sentence of an earnings call claims something of the future in numbers.

Shah et al. (2024). A folder has the earnings-call part of the data, as it is published or as JSON
lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from trainables.tasks.financial.numbered import NumberedLabels

_PROMPT = """A sentence of an earnings call:
{input}
Does it make a claim about the future in numbers? Answer "claim" or "fact".
Answer:"""


@dataclass(frozen=True)
class NumClaim(NumberedLabels):
    """The published label 1 is in-claim, 0 out-of-claim."""

    name: ClassVar[str] = "numclaim"
    prompts: ClassVar[Mapping[str, str]] = {"default": _PROMPT}
    sentence_column: ClassVar[str] = "text"
    usual_labels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "out-of-claim": ("fact",),
        "in-claim": ("claim",),
    }
