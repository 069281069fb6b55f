"""Target modules: whether the names that a method is to adapt are in a model.

PEFT adapts what matches and says nothing of a name that does not, unless none does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"  # every linear layer but the head


def target_faults(model: PreTrainedModel, targets: str | Sequence[str]) -> list[str]:
    """A message if one of `targets` matches no layer of `model` that can be adapted; else [].

    As in PEFT, an element of a list is the end of a module's name, from a dot on, and a text alone
    is a regular expression for whole names. The model may be on the meta device.
    """
    if targets == ALL_LINEAR:
        return []
    layers = {n: module for n, module in model.named_modules() if _can_be_adapted(module)}
    linear = [n for n, module in layers.items() if _is_linear(module, model)]
    names = sorted({name.rpartition(".")[2] for name in linear})
    there = f"It has {', '.join(names)}; {ALL_LINEAR} stands for all of them."
    if isinstance(targets, str):
        if any(re.fullmatch(targets, name) for name in layers):
            return []
        return [
            f"target_modules: {targets!r} alone is a pattern for whole names, as {linear[0]}, and "
            f"this model has none that matches. Give a list of names, as [{targets}]. {there}"
        ]
    wrong = [name for name in targets if not any(_ends(layer, name) for layer in layers)]
    if not wrong:
        return []
    return [f"target_modules: this model has no layer {', '.join(wrong)}. {there}"]


def _ends(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _can_be_adapted(module: Any) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, Conv1D))


def _is_linear(module: Any, model: PreTrainedModel) -> bool:
    """Whether it is one of the layers that ALL_LINEAR stands for."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, Conv1D)) and module is not model.get_output_embeddings()
