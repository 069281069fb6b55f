"""How trials, metrics and quantities are named wherever the user reads them. LIGHT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.spec.knobs import AUTO

TITLES = {
    "em_acc": "EmAcc",
    "em_acc_strict": "strict EmAcc",
    "em_acc_numeric": "numeric EmAcc",
    "f1": "F1",
    "eval_loss": "eval loss",
    "train_loss": "train loss",
    "train_peak_memory_bytes": "training peak memory",
    "eval_peak_memory_bytes": "evaluation peak memory",
    "train_flops": "train FLOPs",
    "eval_flops": "evaluation FLOPs",
}
MISSING = "–"


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


def title(metric: str) -> str:
    """A metric's name in prose."""
    return TITLES.get(metric, metric.replace("_", " "))


def percent_text(share: float | None) -> str:
    """0.615 as '61.5%'."""
    return MISSING if share is None else f"{100 * share:.1f}%"


def points_text(difference: float) -> str:
    """A difference of shares in percentage points: 0.123 as '+12.3 points'."""
    return f"{100 * difference:+.1f} points"


def number_text(value: float | None, digits: int = 3) -> str:
    """A loss or a rate with `digits` decimals."""
    return MISSING if value is None else f"{value:.{digits}f}"


def bytes_text(count: float | None) -> str:
    """Bytes in MiB, from 1 GiB on in GiB."""
    if count is None:
        return MISSING
    mebibytes = count / 2**20
    return f"{mebibytes:.1f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.2f} GiB"


def flops_text(count: float | None) -> str:
    """FLOPs with three digits: '3.2 TFLOP'."""
    if count is None:
        return MISSING
    units = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP")
    place = 0
    while count >= 999.5 and place < len(units) - 1:
        count, place = count / 1000, place + 1
    return f"{count:.3g} {units[place]}"


def byte_seconds_text(count: float | None) -> str:
    """Memory times time with three digits: '0.355 MiB·h', from 1 GiB·h on '3.42 GiB·h'."""
    if count is None:
        return MISSING
    hours = count / 2**20 / 3600
    return f"{hours:.3g} MiB·h" if hours < 1000 else f"{hours / 1024:.3g} GiB·h"


def seconds_text(seconds: float | None) -> str:
    """'8 s', '4 min 10 s' or '2 h 05 min'."""
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def p_text(p_value: float) -> str:
    """A p-value with two digits, never as zero."""
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"
