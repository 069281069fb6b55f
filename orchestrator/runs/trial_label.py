"""Labels of trials for tables, plots and trackers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.spec.knobs import KNOBS, method_of


def trial_label(knobs: Mapping[str, Any], *, with_method: bool = True) -> str:
    """A short description of a trial: 'small nf4 r8 a16 lr1.3e-03 b8x2'.

    Model, quantization, method (none for the default method), and the labels of KNOBS. Knobs that
    the configuration does not have are left out; an untrained baseline reads 'small nf4
    untrained'. 'b16auto' are 16 examples per step, in micro-batches that fit; 'full z3 w4' is full
    fine-tuning under ZeRO-3 on four workers.
    """
    parts = [model_name(knobs), quantization_name(knobs)]
    if with_method:
        parts.append(_method_label(knobs))
    parts += [*_labels(knobs, of_method=True), *_labels(knobs, of_method=False)]
    return " ".join(part for part in parts if part)


def method_name(knobs: Mapping[str, Any]) -> str:
    """'lora', or 'full z3 w4': full fine-tuning under ZeRO-3 on four workers."""
    name = str(knobs.get("method", KNOBS["method"].default))
    return " ".join([name, *_labels(knobs, of_method=True)])


def _method_label(knobs: Mapping[str, Any]) -> str:
    """A method that this version does not have is labelled by its name."""
    method = method_of(knobs)
    return str(knobs["method"]) if method is None else method.label


def _labels(knobs: Mapping[str, Any], *, of_method: bool) -> list[str]:
    """The labels of knobs that belong to a method's name, or of all others."""
    rows = [
        (name, row) for name, row in KNOBS.items() if (row.method_place is not None) == of_method
    ]
    rows.sort(key=lambda item: item[1].method_place or 0)
    found = [row.label_of(knobs) for name, row in rows if _is_labelled(name, knobs)]
    return [label for label in found if label]


def _is_labelled(name: str, knobs: Mapping[str, Any]) -> bool:
    return name in knobs and not KNOBS[name].is_unsaid(knobs[name])


def model_name(knobs: Mapping[str, Any]) -> str:
    """The last part of the model's path or hub id."""
    return str(knobs.get("model") or "?").rstrip("/").split("/")[-1]


def quantization_name(knobs: Mapping[str, Any]) -> str:
    """'nf4', or 'nf4+dq' with double quantization."""
    double = "+dq" if knobs.get("double_quantization") else ""
    return f"{knobs.get('quantization', 'none')}{double}"
