"""QUANTIZATIONS: how a base's weights are stored, one row each.

A row names bits and loader arguments; `trainables.models.quantized` makes a configuration of
transformers of them. To add a quantization, add a row; tests/contracts runs over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantization:
    """Bits per weight of the frozen base, and the arguments of its BitsAndBytesConfig."""

    bits: int
    loader: dict[str, object]
    has_double_quantization: bool = False


QUANTIZATIONS: dict[str, Quantization] = {
    "none": Quantization(bits=16, loader={}),
    "int8": Quantization(bits=8, loader={"load_in_8bit": True}),
    "nf4": Quantization(
        bits=4,
        loader={"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        has_double_quantization=True,
    ),
    "fp4": Quantization(
        bits=4,
        loader={"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        has_double_quantization=True,
    ),
}
