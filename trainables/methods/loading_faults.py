"""What transformers reports of a load whose weights do not match, as faults.

It loads such a checkpoint: what is missing gets random values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.errors import InputError

_SHOWN = 4  # names in a message
_MASKS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")


def key_faults(info: Mapping[str, Collection[Any]]) -> list[str]:
    """The faults in transformers' `output_loading_info`, a message for each kind.

    What transformers expects to be absent or superfluous is not in that: tied weights, buffers of
    rotary embeddings, and what the model's class ignores. Causal masks, which older versions saved
    with the weights, are no faults either.
    """
    unexpected = [name for name in info["unexpected_keys"] if not name.endswith(_MASKS)]
    mismatched = [
        f"{name} ({_shape(found)} instead of {_shape(wanted)})"
        for name, found, wanted in info["mismatched_keys"]
    ]
    kinds = (
        (info["missing_keys"], "lacks {} of its architecture, which would be random"),
        (unexpected, "holds {} that its architecture does not have"),
        (mismatched, "holds {} of another shape than its config.json says"),
    )
    return [
        f"{text.format(_weights(len(names)))}: {listed(sorted(names))}."
        for names, text in kinds
        if names
    ]


def refuse_faults(place: Path | str, faults: Sequence[str]) -> None:
    """Raises InputError if there are faults of the model in `place`."""
    if faults:
        raise InputError([f"model: {place} {fault}" for fault in faults])


def listed(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _weights(count: int) -> str:
    return f"{count} weight" if count == 1 else f"{count} weights"


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)
