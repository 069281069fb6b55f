"""Simulations of a model of any depth from simulations of shallow ones.

Memory and FLOPs grow linearly with the number of repeated blocks, in each phase: two depths give a
line, and a third one checks it. If the check fails, or if the shallow models have as many blocks as
the model, it is simulated at its full depth.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from trainables.errors import InputError, near_name
from trainables.methods.blocks import decoder_config
from trainables.methods.registry import make_method
from trainables.resources.estimate import Workload
from trainables.simulation.blocks import Pattern, block_kinds, pattern_of, shortened
from trainables.simulation.phases import BACKWARD_BETWEEN
from trainables.simulation.step import EVALUATION, PARTS, Measured, simulate

LINE_TOLERANCE = 0.002  # share by which the third depth may differ from the line of the other two

_SMALL_BYTES = 65_536  # smaller differences are ignored
_ATTEMPTS = 3


def simulate_any_depth(
    config: Mapping[str, Any], knobs: Mapping[str, Any], workload: Workload, *, device: str
) -> tuple[Measured, tuple[int, ...]]:
    """The bytes and FLOPs of the model that `config`, a config.json, describes, and the depths
    that were simulated for them.

    Raises InputError for a model that transformers doesn't know.
    """
    whole = model_config(config)
    depth = int(decoder_config(whole).num_hidden_layers)
    method = make_method(knobs)
    parts = PARTS if method.trains else (EVALUATION,)
    kinds = block_kinds(whole)
    pattern = pattern_of(kinds)

    # Where the backward pass ends at a block of fixed distance from the last, it is the same pass.
    bent = () if method.blocks_apart() else (BACKWARD_BETWEEN,)

    @functools.cache
    def at(blocks: int) -> Measured:
        short = shortened(whole, blocks)
        return simulate(short, knobs, workload, device=device, parts=parts, repeated=pattern)

    for depths in _depths(depth, pattern, apart=method.blocks_apart()):
        if any(block_kinds(shortened(whole, blocks)) != kinds[:blocks] for blocks in depths):
            break
        line = _Line.through(at(depths[0]), at(depths[1]), depths, without=bent)
        if line.fits(at(depths[2]), depths[2]):
            return line.at(depth), depths
    return at(depth), (depth,)


def model_config(config: Mapping[str, Any]) -> Any:
    """The configuration of transformers for a config.json; InputError if it doesn't know one."""
    from transformers import CONFIG_MAPPING, AutoConfig

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise InputError(f"model: its config.json {_unknown_type(model_type, CONFIG_MAPPING)}")
    given = {name: value for name, value in config.items() if name != "quantization_config"}
    try:
        return AutoConfig.for_model(**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"model: its config.json can't be used: {error}") from error


def _unknown_type(model_type: object, known: Iterable[str]) -> str:
    from transformers import __version__

    if not isinstance(model_type, str):
        return "has no model_type; needs one that transformers knows, as llama."
    near = near_name(model_type, known)
    hint = f"Did you mean '{near}'?" if near else "Use a model or a transformers that fits."
    return f"has the model_type {model_type!r}, unknown to transformers {__version__}. {hint}"


def _depths(depth: int, pattern: Pattern, *, apart: int) -> Iterator[tuple[int, int, int]]:
    """Depths to simulate, which end with the same kind of block as the model and have fewer blocks
    than it together; the last `apart` blocks, of no kind of their own, are in each."""
    period = pattern.period
    shortest = pattern.shortest + apart
    first = shortest + (depth - shortest) % period
    for start in range(first, first + _ATTEMPTS * period, period):
        depths = start, start + period, start + 2 * period
        if sum(depths) < depth:
            yield depths


class _Line:
    """Every number of a simulation as a linear function of depth.

    Except for the backward pass between the last and the first block, where it goes through all of
    them: its bytes change linearly from those in the one to those in the other, so its peak is one
    of theirs.
    """

    def __init__(self, start: int, measured: Measured, slopes: Measured) -> None:
        self._start = start
        self._measured = measured
        self._slopes = slopes

    @classmethod
    def through(
        cls,
        first: Measured,
        second: Measured,
        depths: tuple[int, ...],
        *,
        without: Collection[str],
    ) -> _Line:
        blocks = depths[1] - depths[0]

        def slopes(low: Mapping[str, int], high: Mapping[str, int]) -> dict[str, int]:
            return {n: (high[n] - low[n]) // blocks for n in low if n not in without}

        bytes_, flops = slopes(first.bytes, second.bytes), slopes(first.flops, second.flops)
        return cls(depths[0], first, Measured(bytes_, flops))

    def at(self, depth: int) -> Measured:
        blocks = depth - self._start
        start, slopes = self._measured, self._slopes
        return Measured(
            {name: start.bytes[name] + slope * blocks for name, slope in slopes.bytes.items()},
            {name: start.flops[name] + slope * blocks for name, slope in slopes.flops.items()},
        )

    def fits(self, measured: Measured, depth: int) -> bool:
        expected = self.at(depth)
        return all(
            abs(line[name] - value) <= max(LINE_TOLERANCE * value, _SMALL_BYTES)
            for line, found in ((expected.bytes, measured.bytes), (expected.flops, measured.flops))
            for name, value in found.items()
            if name in line
        )
