"""The blocks of a model: which are of one kind, and from where on their kinds repeat."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainables.methods.blocks import blocks_of, decoder_config

_PLAIN = (bool, int, str, type(None))
_NAMES_OF_PLACES = ("idx", "index", "layer_id", "training")  # attributes that tell no kind


@dataclass(frozen=True)
class Pattern:
    """From block `lead` on, each block is of the kind of the one `period` blocks before it."""

    lead: int
    period: int

    @property
    def shortest(self) -> int:
        """The blocks of the shortest model whose first and last repeated ones are apart."""
        return self.lead + 2 * self.period


ALL_ALIKE = Pattern(lead=0, period=1)


def block_kinds(config: Any) -> tuple[Hashable, ...]:
    """The kind of each block, by its modules, their parameters and plain attributes, and what the
    configuration says of it."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    lists = _lists_per_block(decoder_config(config)).values()
    kinds = (_kind(block) for block in blocks_of(model))
    return tuple((kind, *map(str, said)) for kind, *said in zip(kinds, *lists, strict=True))


def pattern_of(kinds: Sequence[Hashable]) -> Pattern:
    """The pattern with the fewest blocks; of kinds without one, a single period."""
    depth = len(kinds)
    patterns = (Pattern(_lead(kinds, period), period) for period in range(1, depth + 1))
    return min(patterns, key=lambda pattern: pattern.shortest, default=ALL_ALIKE)


def shortened(config: Any, blocks: int) -> Any:
    """The configuration of a model that has only the first `blocks` blocks."""
    short = copy.deepcopy(config)
    decoder = decoder_config(short)
    cut = {name: said[:blocks] for name, said in _lists_per_block(decoder).items()}
    decoder.num_hidden_layers = blocks
    for name, said in cut.items():
        setattr(decoder, name, said)
    return short


def _lead(kinds: Sequence[Hashable], period: int) -> int:
    """The first block from which on the kinds repeat with this period."""
    lead = len(kinds) - period
    while lead and kinds[lead - 1] == kinds[lead - 1 + period]:
        lead -= 1
    return lead


def _lists_per_block(config: Any) -> dict[str, list[Any]]:
    """The entries of a configuration that have one value for each block."""
    depth = config.num_hidden_layers
    return {
        name: list(value)
        for name, value in config.to_dict().items()
        if isinstance(value, list | tuple) and len(value) == depth
    }


def _kind(block: nn.Module) -> Hashable:
    return tuple(_described(name, module) for name, module in block.named_modules())


def _described(name: str, module: nn.Module) -> Hashable:
    own = {**dict(module.named_parameters(recurse=False)), **module._buffers}
    shapes = tuple((key, tuple(t.shape), str(t.dtype)) for key, t in own.items() if t is not None)
    plain = (
        (key, value)
        for key, value in sorted(vars(module).items())
        if isinstance(value, _PLAIN) and not any(place in key for place in _NAMES_OF_PLACES)
    )
    return name, type(module).__name__, shapes, tuple(plain)
