"""Quantized loading: the configuration for transformers, and how much of a model it quantizes.

transformers replaces modules of exactly torch's Linear class and leaves everything else as it is:
subclasses, and experts that are plain tensors. Subclasses that compute the same are replaced here;
a model of which less than LEAST_SHARE is quantized is refused.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainables.errors import InputError
from trainables.methods.loading_faults import listed
from trainables.spec.quantization import quantization_of, stored_quantization

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LEAST_SHARE = 0.9  # of the linear weights, for a base to be called quantized

Knobs = Mapping[str, Any]


def quantization_config(knobs: Knobs) -> Any:
    """The BitsAndBytesConfig of the knobs' quantization, or None without one."""
    from transformers import BitsAndBytesConfig

    row = quantization_of(knobs)
    if not row.loader:
        return None
    return BitsAndBytesConfig(
        **row.loader,
        bnb_4bit_use_double_quant=bool(knobs.get("double_quantization", False)),
        bnb_4bit_compute_dtype=DTYPES[knobs["compute_dtype"]],
    )


def with_compute_dtype(config: Any, knobs: Knobs) -> bool:
    """Makes a saved quantization compute in the dtype of the knobs; whether `config`, which is
    transformers', has one. Another one can't be given to the loader beside it."""
    parts = {id(part): part for part in (config, config.get_text_config())}.values()
    saved = [q for part in parts if (q := stored_quantization(part.to_dict())) is not None]
    for part in parts:
        if getattr(part, "quantization_config", None) is not None:
            part.quantization_config = {
                **saved[0],
                "bnb_4bit_compute_dtype": knobs["compute_dtype"],
            }
    return bool(saved)


def quantize_on_meta(model: Any, knobs: Knobs) -> None:
    """Inserts the layers that loading would insert into a model on the meta device.

    Raises InputError if that quantizes too little of it.
    """
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import get_keys_to_not_convert

    config = quantization_config(knobs)
    if config is None:
        return
    left = get_keys_to_not_convert(model)
    _replace_subclasses(model)
    replace_with_bnb_linear(model, modules_to_not_convert=left, quantization_config=config)
    model.is_loaded_in_8bit = config.load_in_8bit  # PEFT asks for these
    model.is_loaded_in_4bit = config.load_in_4bit
    refuse_unquantized(model, knobs)


@contextlib.contextmanager
def replacing_subclasses() -> Iterator[None]:
    """Inside, transformers quantizes subclasses of torch's Linear that compute the same, too.

    Not those of a checkpoint that is saved quantized, whose weights fit the modules it was saved
    from.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as QUANTIZERS

    own = {name: QUANTIZERS[name] for name in ("bitsandbytes_4bit", "bitsandbytes_8bit")}
    QUANTIZERS.update({name: _replacing(quantizer) for name, quantizer in own.items()})
    try:
        yield
    finally:
        QUANTIZERS.update(own)


@dataclass(frozen=True)
class LinearWeight:
    """A matrix, or a stack of them, by which a model multiplies, and the number of its values."""

    name: str
    count: int
    is_quantized: bool


def linear_weights(model: Any) -> list[LinearWeight]:
    """All weights of two dimensions or more, also experts that are one tensor of a module.

    Not among them: embeddings, convolutions, and what transformers never quantizes by design, the
    output head and whatever shares its weights (`get_keys_to_not_convert`).
    """
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = get_keys_to_not_convert(model)
    other = (nn.Embedding, nn.modules.conv._ConvNd)
    return [
        weight
        for name, module in model.named_modules()
        if should_convert_module(name, kept) and not isinstance(module, other)
        for weight in _weights_of(module, name)
    ]


def refuse_unquantized(model: Any, knobs: Knobs) -> None:
    """Raises InputError if less than LEAST_SHARE of the linear weights is quantized, where the
    knobs say that they are."""
    if not quantization_of(knobs).loader:
        return
    weights = linear_weights(model)
    left = sorted((each for each in weights if not each.is_quantized), key=lambda one: -one.count)
    total = sum(each.count for each in weights)
    share = 1 - sum(each.count for each in left) / max(total, 1)
    if share >= LEAST_SHARE and weights:
        return
    name, quantization = knobs["model"], knobs["quantization"]
    raise InputError(
        f"quantization: {quantization} of {name} would quantize {share:.1%} of its linear weights, "
        f"and {LEAST_SHARE:.0%} are needed to call it that. These stay as they are: "
        f"{listed([each.name for each in left])}. Use quantization: none, or exclude it: "
        f"exclude: [{{model: {name}, quantization: [{quantization}]}}]."
    )


def keep_weights_unpacked(model: Any) -> None:
    """Keeps bitsandbytes 0.50 from repacking 4-bit weights in place at the first evaluation on a
    CPU with AVX512-BF16: training after it would run a kernel without a gradient."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _weights_of(module: Any, name: str) -> Iterator[LinearWeight]:
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    if isinstance(module, (Linear4bit, Linear8bitLt)):
        count = module.in_features * module.out_features
        yield LinearWeight(f"{name}.weight", count, _holds_codes(module.weight))
        return
    for part, weight in module.named_parameters(recurse=False):
        if weight.ndim >= 2:
            yield LinearWeight(f"{name}.{part}", weight.numel(), is_quantized=False)


def _holds_codes(weight: Any) -> bool:
    """Whether the weight of a quantized layer is quantized; on the meta device it will be."""
    is_packed = getattr(weight, "quant_state", None) is not None or weight.dtype == torch.int8
    return is_packed or weight.device.type == "meta"


def _replacing(quantizer: type[Any]) -> type[Any]:
    def before(self: Any, model: Any, **given: Any) -> Any:
        if not self.pre_quantized:
            _replace_subclasses(model)
        return quantizer._process_model_before_weight_loading(self, model, **given)

    return type(quantizer.__name__, (quantizer,), {"_process_model_before_weight_loading": before})


def _replace_subclasses(model: Any) -> None:
    """Makes modules of a subclass that computes what torch's Linear does instances of that."""
    for module in model.modules():
        kind: Any = type(module)
        if isinstance(module, nn.Linear) and _is_plain(kind):
            module.__class__ = nn.Linear


@functools.cache
def _is_plain(kind: Any) -> bool:
    """Whether modules of this class hold and compute what torch's Linear does, by trying one."""
    if kind.__init__ is not nn.Linear.__init__:
        return False
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
        probe, plain, rows = kind(5, 3), nn.Linear(5, 3), torch.rand(2, 4, 5)
        plain.load_state_dict(probe.state_dict())
        found = probe(rows)
        return isinstance(found, torch.Tensor) and torch.allclose(found, plain(rows), atol=1e-6)
