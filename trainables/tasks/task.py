"""The contract of a task: what a trial learns, how it is asked, and how its answers are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

SPLITS = ("train", "selection", "report")


@dataclass(frozen=True)
class Cut:
    """A piece of a prompt that may be shortened, and the side ("start" or "end") that goes."""

    piece: int
    side: str


@dataclass(frozen=True)
class Prompt:
    """One question as the model reads it.

    `pieces` concatenate to the user's message, which ends without a newline. `cuts` are what may
    be shortened, the first first. `reply` begins the answer: it follows the chat template's
    generation prompt or, without a template, a newline; it ends without a space, a target begins
    without one, and one space joins them.
    """

    pieces: tuple[str, ...]
    cuts: tuple[Cut, ...]
    reply: str

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class Example:
    """One question: a stable id, unique over all splits, and its group, which no splits share.

    `kind`, what sort of question it is, is for counts only; "" where nothing tells it.
    """

    id: str
    record: Mapping[str, Any]
    group: str
    kind: str = ""


class Task(Protocol):
    """A kind of question with its data, prompts, targets and scoring rule."""

    name: ClassVar[str]
    unit: ClassVar[str]

    @property
    def version(self) -> str:
        """Names all that decides targets and scores apart from the data and the prompt."""
        ...

    @property
    def prompt_digest(self) -> str:
        """Changes whenever the wording or layout of prompts does."""
        ...

    def load(self, split: str) -> list[Example]:
        """The examples of one of SPLITS, in a fixed order. Raises InputError for bad data."""
        ...

    def prompt(self, example: Example) -> Prompt: ...

    def target(self, example: Example) -> str:
        """What the model learns to write after the prompt's reply, without a leading space."""
        ...

    def gold(self, example: Example) -> float | str: ...

    def score(self, example: Example, completion: str) -> Mapping[str, float]:
        """Flags and shares of one question; `em_acc` and `em_acc_strict` are true or false."""
        ...

    def reason(self, example: Example, completion: str) -> str:
        """In a few words, what the rule read in a completion and why `score` is what it is."""
        ...

    def metrics(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Aggregates what `score` gave, one per question of a split; each counts once."""
        ...

    def data_digest(self, split: str) -> str:
        """A sha256 of the split's content, whatever file it came from."""
        ...

    def facts(self, split: str) -> dict[str, str | int]:
        """What a result must say of its data: `context`, `evidence`, `examples`."""
        ...


NOTHING = "nothing was written"
