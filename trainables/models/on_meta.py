"""A base on the meta device: its modules without weights, as loading would make them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from trainables.models.quantized import DTYPES, quantize_on_meta


def base_on_meta(config: Any, knobs: Mapping[str, Any]) -> Any:
    """The frozen base of transformers' `config`, quantized as in `knobs`, on the meta device.

    Raises InputError if the quantization reaches too little of it (`models.quantized`).
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=DTYPES[knobs["compute_dtype"]]
        )
    model.tie_weights()
    quantize_on_meta(model, knobs)
    model.requires_grad_(False)
    model.eval()
    return model
