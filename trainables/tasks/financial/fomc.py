"""FOMC: the stance of sentences on monetary policy (Shah et al., ACL 2023).

A folder has the files of `training_data/test-and-training`, as they are published or as JSON lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from trainables.tasks.financial.numbered import NumberedLabels

_PROMPT = """A sentence of the central bank's committee:
{input}
Is its stance dovish (easier money), hawkish (tighter money) or neutral? Answer with one word.
Answer:"""


@dataclass(frozen=True)
class FOMC(NumberedLabels):
    """The published labels 0, 1 and 2 are dovish, hawkish and neutral."""

    name: ClassVar[str] = "fomc"
    prompts: ClassVar[Mapping[str, str]] = {"default": _PROMPT}
    sentence_column: ClassVar[str] = "sentence"
    usual_labels: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dovish": ("dovish",),
        "hawkish": ("hawkish",),
        "neutral": ("neutral",),
    }
