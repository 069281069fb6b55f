"""DECODING_ROWS: the rows of KNOBS on how answers are drawn from a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainables.methods.registry import METHODS
from trainables.spec.checks import Check, above, at_least, one_of, whole, within
from trainables.spec.decoding import DRAWING, GREEDY_STRATEGY, SEARCHING, STRATEGIES, Decoding
from trainables.spec.knob import Knob
from trainables.spec.memory_effect import NONE, UP, MemoryEffect
from trainables.spec.memory_effect import above as memory_above
from trainables.spec.rows.task_knobs import GENERATE

_NO = Decoding()
_MOST_VOTES = 1000
_MOST_BEAMS = 64


def _from_to(lowest: int, most: int, what: str) -> Check:
    """Accepts whole numbers of `what` from `lowest` to `most`."""

    def wrong(value: Any) -> str | None:
        many = f"got {value!r}; needs at most {most} {what}."
        return whole(lowest)(value) or (many if value > most else None)

    return wrong


def _share(value: Any) -> str | None:
    """Accepts numbers above 0 up to 1."""
    return above(0)(value) or within(0, 1)(value)


def _is_written(configuration: Mapping[str, Any]) -> bool:
    """Whether the model writes its answers. Baselines do too, greedily."""
    writes = configuration.get("answer", GENERATE) == GENERATE
    return writes and not METHODS[configuration["method"]].is_baseline


def _decoded_by(strategies: tuple[str, ...]) -> Callable[[Mapping[str, Any]], bool]:
    def read_by(configuration: Mapping[str, Any]) -> bool:
        return _is_written(configuration) and configuration.get("decoding") in strategies

    return read_by


def _is_not_greedy(value: Any) -> bool:
    return bool(value != GREEDY_STRATEGY)


DECODING_ROWS: dict[str, Knob] = {
    "decoding": Knob(
        GREEDY_STRATEGY,
        one_of(*STRATEGIES),
        str,
        _is_written,
        unsaid=True,
        switches=_is_not_greedy,
        simulated=None,  # see `simulation.estimate.digest`
        has_column=False,
        affects_speed=False,
        varied_label=None,
        plan_place=8,
    ),
    "temperature": Knob(
        _NO.temperature,
        above(0),
        float,
        _decoded_by(DRAWING),
        memory=NONE,
        has_column=False,
        affects_speed=False,
        label="t{temperature:.2g}",
        plan_place=9,
    ),
    "top_k": Knob(
        _NO.top_k,
        whole(0),
        int,
        _decoded_by(DRAWING),
        memory=memory_above(0),
        simulated=None,
        has_column=False,
        affects_speed=False,
        varied_label="top{top_k}",
    ),
    "top_p": Knob(
        _NO.top_p,
        _share,
        float,
        _decoded_by(DRAWING),
        memory=MemoryEffect(lambda one, other: bool(one < 1 or other >= 1)),  # it sorts all tokens
        simulated=None,
        has_column=False,
        affects_speed=False,
        varied_label="p{top_p:.2g}",
    ),
    "beams": Knob(
        4,
        _from_to(2, _MOST_BEAMS, "beams"),  # one alone is greedy decoding
        int,
        _decoded_by(SEARCHING),
        memory=UP,
        simulated=None,
        has_column=False,
        affects_speed=False,
        label="{beams}beams",
        plan_place=10,
    ),
    "length_penalty": Knob(
        _NO.length_penalty,
        at_least(0),
        float,
        _decoded_by(SEARCHING),
        memory=NONE,
        has_column=False,
        affects_speed=False,
        varied_label="penalty{length_penalty:.2g}",
    ),
    "votes": Knob(  # asked one after another, so that memory does not grow
        _NO.votes,
        _from_to(1, _MOST_VOTES, "votes"),
        int,
        _decoded_by(DRAWING),
        memory=NONE,
        has_column=False,
        affects_speed=False,
        varied_label="{votes}votes",
        plan_place=11,
    ),
    "decoding_seed": Knob(
        _NO.seed,
        whole(0),
        int,
        _decoded_by(DRAWING),
        memory=NONE,
        has_column=False,
        affects_speed=False,
        varied_label="draw{decoding_seed}",
    ),
}
