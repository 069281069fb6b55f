"""Labels of trials for tables, plots and trackers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.spec.knobs import AUTO


def trial_label(knobs: Mapping[str, Any]) -> str:
    """What tells one trial from another in a line: 'small nf4 r8 a16 lr1.3e-03 b8x2'.

    Knobs that the configuration does not have are left out; an untrained baseline reads
    'small nf4 untrained'. 'b16auto' are 16 examples per step, in micro-batches that fit; 'full z3
    w4' is full fine-tuning under ZeRO-3 on four workers.
    """
    parts = [model_name(knobs), quantization_name(knobs)]
    method = str(knobs.get("method", "lora"))
    if method != "lora":
        parts.append(method)
    parts += _team_label(knobs)
    if "rank" in knobs:
        parts.append(f"r{knobs['rank']}")
    if "alpha" in knobs:
        parts.append(f"a{knobs['alpha']:g}")
    if "learning_rate" in knobs:
        parts.append(f"lr{knobs['learning_rate']:.1e}")
    if "batch_size" in knobs:
        parts.append(_batch_label(knobs))
    return " ".join(part for part in parts if part)


def _team_label(knobs: Mapping[str, Any]) -> list[str]:
    """['z3', 'w4']: ZeRO-3 on four workers; nothing for one worker alone."""
    stage, workers = knobs.get("zero_stage", 0), knobs.get("workers", 1)
    return ([f"z{stage}"] if stage else []) + ([f"w{workers}"] if workers > 1 else [])


def _batch_label(knobs: Mapping[str, Any]) -> str:
    if knobs["batch_size"] == AUTO:
        return f"b{knobs.get('effective_batch_size', '')}auto"
    return f"b{knobs['batch_size']}x{knobs.get('gradient_accumulation', 1)}"


def method_name(knobs: Mapping[str, Any]) -> str:
    """'lora', or 'full z3 w4': full fine-tuning under ZeRO-3 on four workers."""
    return " ".join([str(knobs.get("method", "lora")), *_team_label(knobs)])


def model_name(knobs: Mapping[str, Any]) -> str:
    """The last part of the model's path or hub id."""
    return str(knobs.get("model") or "?").rstrip("/").split("/")[-1]


def quantization_name(knobs: Mapping[str, Any]) -> str:
    """'nf4', or 'nf4+dq' with double quantization."""
    double = "+dq" if knobs.get("double_quantization") else ""
    return f"{knobs.get('quantization', 'none')}{double}"
