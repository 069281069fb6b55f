"""How transformers is told a strategy: its options, draws by question, the end of a line in beams.

What `Decoding` calls a sample is drawn here and not by transformers, which draws a whole batch from
one generator: each question has its own, so that its answer can be asked again in any batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.generation.logits_process import (
    LogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from trainables.models.base import Base
from trainables.spec.decoding import BEAM_SAMPLE, SAMPLE, Decoding

GREEDY = Decoding()


@dataclass(frozen=True)
class Draw:
    """How one batch of answers is drawn: by which strategy, for which of its votes, and the ids of
    the questions, which decide their draws together with the seed."""

    decoding: Decoding = GREEDY
    vote: int = 0
    ids: tuple[str, ...] = ()

    def key(self, place: int) -> str:
        return f"{self.decoding.seed}/{self.vote}/{self.ids[place]}"


GREEDY_DRAW = Draw()


class Steps(LogitsProcessor):  # type: ignore[misc]
    """Counts the passes of a generation: what beams return may be shorter than what was tried."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        self.count += 1
        return scores


class Drawn(LogitsProcessor):  # type: ignore[misc]
    """Draws the next token of each row from its scores, as the last processor of greedy decoding.

    A row takes one number of its own generator a step and the token at which the cumulated
    probability passes it, in float64.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._chances = [random.Random(key) for key in keys]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        cumulated = scores.double().softmax(dim=-1).cumsum(dim=-1)
        numbers = [[chance.random()] for chance in self._chances]
        wanted = torch.tensor(numbers, dtype=torch.float64, device=scores.device)
        wanted = wanted * cumulated[:, -1:]
        tokens = torch.searchsorted(cumulated, wanted, right=True)
        tokens = tokens.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, float("-inf")).scatter_(1, tokens, 0.0)


class EndOfLineOfBeams:
    """As `generation.EndOfLine`, for rows that change their places: it reads them whole."""

    def __init__(self, base: Base, prompt_length: int) -> None:
        self._base = base
        self._prompt_length = prompt_length

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        del scores, kwargs
        tokens = input_ids[:, self._prompt_length :]
        begun = (~self._base.blanks[tokens]).cumsum(dim=1) > 0
        return (begun & self._base.line_ends[tokens]).any(dim=1)


def strategy_options(draw: Draw, steps: Steps) -> dict[str, Any]:
    """The arguments of `generate` by which it follows the strategy; `steps` counts its passes."""
    decoding = draw.decoding
    if decoding.is_greedy:
        return {}
    if decoding.strategy == SAMPLE:
        keys = [draw.key(place) for place in range(len(draw.ids))]
        return {"logits_processor": [*_warpers(decoding), Drawn(keys)]}
    searched = {
        "num_beams": decoding.beams,
        "length_penalty": decoding.length_penalty,
        "logits_processor": [steps],
    }
    if decoding.strategy != BEAM_SAMPLE:
        return searched
    warped = {"temperature": decoding.temperature, "top_k": decoding.top_k, "top_p": decoding.top_p}
    return {**searched, "do_sample": True, **warped}


@contextmanager
def seeded(draw: Draw, device: torch.device) -> Iterator[None]:
    """While it is open torch's generators are those of the only question of the draw; afterwards
    they are as before. Nothing is changed for strategies that do not draw from them."""
    if draw.decoding.strategy != BEAM_SAMPLE:
        yield
        return
    (place,) = range(len(draw.ids))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(random.Random(draw.key(place)).getrandbits(63))
        yield


def _warpers(decoding: Decoding) -> list[LogitsProcessor]:
    """What transformers applies to the scores of a sample, in its order."""
    warpers = [TemperatureLogitsWarper(decoding.temperature)]
    warpers += [TopKLogitsWarper(decoding.top_k)] if decoding.top_k else []
    return warpers + ([TopPLogitsWarper(decoding.top_p)] if decoding.top_p < 1 else [])
