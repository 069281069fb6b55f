"""Prompting: the base as it is, asked with some training examples before each question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainables.methods.method import Untrained

SHOTS = 4  # the default
SHOT_SELECTIONS = ("random", "balanced", "similar", "regions", "keywords")
BY_VECTORS = ("similar", "regions")  # of them those that compare vectors of the questions
TFIDF, BASE = "tfidf", "base"  # the vectors
DROP, REFUSE = "drop", "refuse"  # what happens to shots that do not fit


@dataclass(frozen=True)
class Prompting(Untrained):
    """Trains nothing, and is searched, stopped early and reported as what trains."""

    title: ClassVar[str] = "prompted base"
    activity: ClassVar[str] = "prompting"
    label: ClassVar[str] = "prompting"
    is_baseline: ClassVar[bool] = False

    shots: int = SHOTS
    shot_selection: str = SHOT_SELECTIONS[0]
    shot_seed: int = 0
    shots_too_long: str = DROP
    shot_vectors: str = TFIDF

    def relative_size(self) -> float:
        return float(self.shots)
