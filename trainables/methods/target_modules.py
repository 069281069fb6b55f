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
    layers = [name for name, module in model.named_modules() if _can_be_adapted(module)]
    if isinstance(targets, str):
        wrong = [] if any(re.fullmatch(targets, name) for name in layers) else [targets]
    else:
        wrong = [name for name in targets if not any(_ends(layer, name) for layer in layers)]
    if not wrong:
        return []
    head = model.get_output_embeddings()
    there = sorted({n.rpartition(".")[2] for n in layers if model.get_submodule(n) is not head})
    return [
        f"target_modules: {', '.join(wrong)} is the name of no layer of this model. It has "
        f"{', '.join(there)}; {ALL_LINEAR} stands for all linear ones."
    ]


def _ends(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _can_be_adapted(module: Any) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, Conv1D))
