"""numbers, sizes and times as people read them."""

from __future__ import annotations


def in_words(amount: float) -> str:
    """Bytes as people say them: 39.6 GiB."""
    for name in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {name}" if amount < 100 else f"{amount:.0f} {name}"
        amount /= 1024
    return f"{amount:.1f} GiB"


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


def title(metric: str) -> str:
    """A metric's name in prose."""
    return TITLES.get(metric, metric.replace("_", " "))


def format_percent(share: float | None) -> str:
    """0.615 as '61.5%'."""
    return MISSING if share is None else f"{100 * share:.1f}%"


def format_points(difference: float) -> str:
    """A difference of shares in percentage points: 0.123 as '+12.3 points'."""
    return f"{100 * difference:+.1f} points"


def format_number(value: float | None, digits: int = 3) -> str:
    """A loss or a rate with `digits` decimals."""
    return MISSING if value is None else f"{value:.{digits}f}"


def format_bytes(count: float | None) -> str:
    """Bytes in MiB, from 1 GiB on in GiB."""
    if count is None:
        return MISSING
    mebibytes = count / 2**20
    return f"{mebibytes:.1f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.2f} GiB"


def format_flops(count: float | None) -> str:
    """FLOPs with three digits: '3.2 TFLOP'."""
    if count is None:
        return MISSING
    units = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP")
    place = 0
    while count >= 999.5 and place < len(units) - 1:
        count, place = count / 1000, place + 1
    return f"{count:.3g} {units[place]}"


def format_byte_seconds(count: float | None) -> str:
    """Memory times time with three digits: '0.355 MiB·h', from 1 GiB·h on '3.42 GiB·h'."""
    if count is None:
        return MISSING
    hours = count / 2**20 / 3600
    return f"{hours:.3g} MiB·h" if hours < 1000 else f"{hours / 1024:.3g} GiB·h"


def format_duration(seconds: float | None) -> str:
    """'8 s', '4 min 10 s' or '2 h 05 min'."""
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_p_value(p_value: float) -> str:
    """A p-value with two digits, never as zero."""
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"
