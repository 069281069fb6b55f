"""The tensors that a model stores, and their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch


def stored_tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a model by name: parameters, buffers and the quantization's state.

    A parameter that ZeRO has partitioned is given by this worker's part.
    """
    for name, parameter in model.named_parameters():
        yield name, getattr(parameter, "ds_tensor", parameter)
    yield from model.named_buffers()
    for name, module in model.named_modules():
        for part, tensor in _quantization_state(module):
            yield f"{name}.{part}", tensor


def tensor_bytes(model: Any) -> int:
    """The bytes of a model's tensors; a tensor with two names counts once."""
    storages = (tensor.untyped_storage() for _, tensor in stored_tensors(model))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _quantization_state(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    if isinstance(module, Linear4bit):
        state = module.weight.quant_state  # its `as_dict` gives copies of some
        yield "absmax", state.absmax
        yield "quant_map", state.code
        if state.nested:
            yield "nested_absmax", state.state2.absmax
            yield "nested_quant_map", state.state2.code
    elif isinstance(module, Linear8bitLt):
        scales = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
        if scales is not None:
            yield "SCB", scales
