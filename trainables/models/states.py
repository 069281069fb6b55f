"""States: what a model's attention keeps of tokens, computed once for several rows or passes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.cache_utils import DynamicCache, DynamicLayer

_ARGUMENTS = {"past_key_values", "position_ids", "logits_to_keep"}


@dataclass(frozen=True)
class States:
    """Keys and values of each block, each (rows, heads, length, size), of tokens whose `mask` is
    (rows, length), 0 at padding. A single row stands for as many rows as a pass has."""

    blocks: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    mask: torch.Tensor

    @property
    def length(self) -> int:
        return self.mask.shape[1]

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for block in self.blocks for part in block)

    def growing(self, rows: int) -> DynamicCache:
        """A cache that begins with them and keeps what is added; they stay as they are."""
        return self._cache(DynamicLayer, rows)

    def lent(self, rows: int) -> DynamicCache:
        """A cache that begins with them and keeps nothing of what a pass adds."""
        return self._cache(_Lent, rows)

    def _cache(self, kind: type[DynamicLayer], rows: int) -> DynamicCache:
        cache = DynamicCache()
        for keys, values in self.blocks:
            layer = kind()
            layer.lazy_initialization(keys, values)
            layer.keys = keys.expand(rows, -1, -1, -1)
            layer.values = values.expand(rows, -1, -1, -1)
            cache.layers.append(layer)
        return cache


def has_states(config: Any) -> bool:
    """Whether the causal language model of a configuration keeps a key and a value of each token in
    each block, and takes them, with the positions of further tokens, as arguments.

    Models with sliding windows or a state of fixed size do not.
    """
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    layers = DynamicCache(config=config).layers
    if model is None or not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return False
    return inspect.signature(model.forward).parameters.keys() >= _ARGUMENTS


def states_of(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, before: States | None = None
) -> States:
    """The states of tokens (rows, length) after those of `before`, and of these."""
    cache = DynamicCache() if before is None else before.growing(len(ids))
    inputs = inputs_after(before, ids, mask)
    model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    blocks = tuple((layer.keys, layer.values) for layer in cache.layers)
    return States(blocks, inputs["attention_mask"])


def inputs_after(
    before: States | None, ids: torch.Tensor, mask: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The arguments of a pass over tokens (rows, length) after those of `before`."""
    whole = mask
    if before is not None:
        whole = torch.cat([before.mask.expand(len(mask), -1), mask], dim=1)
    positions = (whole.cumsum(dim=1) - 1).clamp(min=0)
    return {
        "input_ids": ids,
        "attention_mask": whole,
        "position_ids": positions[:, whole.shape[1] - ids.shape[1] :],
    }


class _Lent(DynamicLayer):  # type: ignore[misc]
    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys = torch.cat([self.keys, key_states], dim=-2)
        return keys, torch.cat([self.values, value_states], dim=-2)
