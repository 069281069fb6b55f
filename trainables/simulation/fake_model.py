"""The model of a configuration without weights: modules of transformers that hold fake tensors.

Modules are built on the meta device (`trainables.models.on_meta`); quantized layers and adapters
are inserted by the same code as in training. Then `fill` replaces every tensor by a fake one of the
shape and type in which it would be stored; call it inside the FakeTensorMode that runs the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from trainables.methods.registry import make_method
from trainables.models.base import Base
from trainables.models.imports import without_compiler

with without_compiler():
    from bitsandbytes import MatmulLtState

Knobs = Mapping[str, Any]

_BLOCK, _NESTED_BLOCK = 64, 256  # values per scale in bitsandbytes' 4-bit weights and their scales


def attached(base: Any, knobs: Knobs) -> Any:
    """The model that the method of `knobs` trains on `base`."""
    return make_method(knobs).attach(base, seed=0, in_place=True)


def fill(model: Any) -> None:
    """Replaces all tensors on meta by fake tensors of the stored shapes."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.device.type == "meta":
                if id(parameter) not in made:
                    made[id(parameter)] = parameter, _stored(module, name, parameter)
                module._parameters[name] = made[id(parameter)][1]
        for name, buffer in module._buffers.items():
            if buffer is not None and not _is_fake(buffer):
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def base_of(model: Any, dtype: torch.dtype) -> Base:
    """A Base as the engine and the evaluation take it, without a tokenizer."""
    from transformers import GenerationConfig

    vocabulary = model.get_output_embeddings().weight.shape[0]
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
    return Base(
        model=model,
        tokenizer=None,
        key="",
        device=torch.device("cpu"),
        compute_dtype=dtype,
        seconds=0.0,
        weight_bytes=0,
        end_tokens=(),
        pad_token=0,
        line_ends=torch.zeros(vocabulary, dtype=torch.bool),
        blanks=torch.zeros(vocabulary, dtype=torch.bool),
        tokenizer_digest="",
    )


def multiply_in_int8(model: Any) -> None:
    """Makes int8 layers use the algorithm of evaluation in training too, as on a GPU."""
    from bitsandbytes.nn import Linear8bitLt

    for module in model.modules():
        if isinstance(module, Linear8bitLt):
            module.state.__class__ = _NeverTraining


def stored_tensors(model: Any) -> Iterator[torch.Tensor]:
    """The tensors of a filled model: parameters, buffers and the scales of quantized weights."""
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        yield from getattr(module, "_scales", ())


def largest_quantized(model: Any) -> int:
    """The number of values of the largest quantized weight; 0 without quantization."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    layers = (m for m in model.modules() if isinstance(m, Linear4bit | Linear8bitLt))
    return max((layer.in_features * layer.out_features for layer in layers), default=0)


class _NeverTraining(MatmulLtState):  # type: ignore[misc]
    """bitsandbytes chooses its algorithm by this state and the device, which is a CPU here."""

    @property
    def is_training(self) -> bool:
        return False

    @is_training.setter
    def is_training(self, value: bool) -> None:
        """Every forward pass sets it; ignored."""


def _is_fake(tensor: torch.Tensor) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


def _stored(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    if name == "weight" and isinstance(module, Linear4bit):
        return _stored_4bit(module, parameter)
    if name == "weight" and isinstance(module, Linear8bitLt):
        return _stored_8bit(module, parameter)
    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
    return nn.Parameter(empty, requires_grad=parameter.requires_grad)


def _stored_4bit(module: Any, weight: Any) -> nn.Parameter:
    from bitsandbytes.functional import QuantState

    count = weight.numel()
    blocks = -(-count // _BLOCK)
    code = torch.empty(16)
    nested = None
    absmax = torch.empty(blocks)
    scales = [absmax, code]
    if weight.compress_statistics:
        absmax = torch.empty(blocks, dtype=torch.uint8)
        nested = QuantState(
            absmax=torch.empty(-(-blocks // _NESTED_BLOCK)),
            code=torch.empty(256),
            blocksize=_NESTED_BLOCK,
            dtype=torch.float32,
        )
        scales = [absmax, code, nested.absmax, nested.code]
    stored = nn.Parameter(torch.empty((-(-count // 2), 1), dtype=torch.uint8), requires_grad=False)
    state = QuantState(
        absmax=absmax,
        shape=weight.shape,
        code=code,
        blocksize=_BLOCK,
        quant_type=weight.quant_type,
        dtype=module.compute_dtype,
        offset=None if nested is None else torch.empty(()),
        state2=nested,
    )
    stored.quant_state = state  # type: ignore[attr-defined]
    module.quant_state = state
    module.support_avx512bf16_for_cpu = False
    module._scales = scales
    return stored


def _stored_8bit(module: Any, weight: Any) -> nn.Parameter:
    values = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(weight.shape[0])
    stored = nn.Parameter(values, requires_grad=False)
    stored.CB = stored.SCB = None  # type: ignore[attr-defined]
    stored.has_fp16_weights = False  # type: ignore[attr-defined]
    module.state.CB, module.state.SCB = values, scales
    module._scales = [scales]
    return stored
