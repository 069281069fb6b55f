"""Decoding: how answers are drawn from a model, as a value that canonical knobs say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GREEDY_STRATEGY, SAMPLE, BEAM, BEAM_SAMPLE = "greedy", "sample", "beam", "beam_sample"
STRATEGIES = (GREEDY_STRATEGY, SAMPLE, BEAM, BEAM_SAMPLE)
DRAWING = (SAMPLE, BEAM_SAMPLE)  # strategies that draw tokens by chance
SEARCHING = (BEAM, BEAM_SAMPLE)  # strategies that follow several beams


@dataclass(frozen=True)
class Decoding:
    """One way to answer; what its strategy does not read has its default.

    `top_k` 0 and `top_p` 1 leave all tokens. Of `votes` answers that are drawn apart, the one that
    most of them mean is taken. `seed` decides all draws, together with a question's id.
    """

    strategy: str = GREEDY_STRATEGY
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 1
    length_penalty: float = 1.0
    votes: int = 1
    seed: int = 0

    @classmethod
    def of(cls, knobs: Mapping[str, Any]) -> Decoding:
        """What canonical knobs say; greedy decoding where they say nothing."""
        fields = {name: name for name in cls.__dataclass_fields__}
        fields |= {"strategy": "decoding", "seed": "decoding_seed"}
        return cls(**{name: knobs[knob] for name, knob in fields.items() if knob in knobs})

    @property
    def is_greedy(self) -> bool:
        return self.strategy == GREEDY_STRATEGY

    @property
    def is_drawn(self) -> bool:
        """Whether another seed may give another answer."""
        return self.strategy in DRAWING

    @property
    def asks_alone(self) -> bool:
        """Whether each question is a batch alone: transformers draws beams of a batch from one
        generator, by which an answer would depend on the others."""
        return self.strategy == BEAM_SAMPLE

    @property
    def shape(self) -> dict[str, Any]:
        """What the memory and FLOPs of answers depend on; nothing for greedy decoding."""
        if self.is_greedy:
            return {}
        shape: dict[str, Any] = {"decoding": self.strategy, "beams": self.beams}
        warms = {"warms": True} if self.asks_alone and self.temperature != 1 else {}
        shape |= {"top_k": self.top_k > 0, "top_p": self.top_p < 1, "votes": self.votes}
        return shape | warms

    def questions_at_once(self, batch_size: int) -> int:
        """The largest batch of questions that are answered together."""
        return 1 if self.asks_alone else batch_size
