"""QUANTIZATIONS: how a base's weights are stored, one row each.

A row names bits and loader arguments; `trainables.models.quantized` makes a configuration of
transformers of them. To add a quantization, add a row; tests/contracts runs over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.errors import InputError


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


def quantization_of(knobs: Mapping[str, Any]) -> Quantization:
    """The row that knobs name; InputError if it is of a later version of this project."""
    name = knobs["quantization"]
    if name not in QUANTIZATIONS:
        raise InputError(
            f"quantization: this version has no {name}; it has {', '.join(QUANTIZATIONS)}. Use the "
            "version that ran the trial."
        )
    return QUANTIZATIONS[name]


def stored_quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `quantization_config` of a config.json whose weights are saved quantized, else None."""
    text = config.get("text_config")
    nested = text.get("quantization_config") if isinstance(text, Mapping) else None
    found = config.get("quantization_config") or nested
    return found if isinstance(found, Mapping) else None


def stored_fault(config: Mapping[str, Any], knobs: Mapping[str, Any]) -> str | None:
    """Why these knobs don't describe the model of a config.json; None if they do.

    A checkpoint that is saved quantized is loaded as it is saved, whatever is asked for: it is the
    one row that it was quantized by, or none of them.
    """
    stored = stored_quantization(config)
    if stored is None:
        return None
    row = _row_of(stored)
    if row is None:
        return (
            f"model {knobs['model']} is saved quantized by {_format(stored)}, which is none of the "
            f"quantizations here ({', '.join(QUANTIZATIONS)}). Give a checkpoint whose weights are "
            "not quantized."
        )
    double = bool(stored.get("bnb_4bit_use_double_quant", False))
    if knobs["quantization"] == row and bool(knobs.get("double_quantization", False)) == double:
        return None
    words = f"quantization: {row}" + (", double_quantization: true" if double else "")
    return (
        f"model {knobs['model']} is saved quantized ({row}) and can only be loaded as it is: "
        f"{knobs['quantization']} is not what would run. Use {words}."
    )


def _row_of(stored: Mapping[str, Any]) -> str | None:
    if stored.get("quant_method", "bitsandbytes") != "bitsandbytes":
        return None
    given = {"bnb_4bit_quant_type": "fp4", **stored}  # the default of BitsAndBytesConfig
    rows = (name for name, row in QUANTIZATIONS.items() if row.loader)
    return next((n for n in rows if QUANTIZATIONS[n].loader.items() <= given.items()), None)


def _format(stored: Mapping[str, Any]) -> str:
    return str(stored.get("quant_method") or "a method that its quantization_config does not name")
