"""Metrics, numbers, sizes and times as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.spec.metric import COMMON_METRICS, MetricSpec


def in_words(amount: float) -> str:
    """Bytes as people say them: 39.6 GiB."""
    for name in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {name}" if amount < 100 else f"{amount:.0f} {name}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def counted(count: float, noun: str, plural: str = "") -> str:
    """'1 trial', '3 trials', '2.5 hours'; `plural` is the noun's if that is not with an s."""
    number = f"{count:g}" if isinstance(count, float) else str(count)
    return f"{number} {noun if count == 1 else plural or noun + 's'}"


def is_or_are(count: int) -> str:
    return "is" if count == 1 else "are"


MISSING = "–"
_TITLES = {metric.name: metric.title for metric in COMMON_METRICS}


def title(metric: str) -> str:
    """The name in prose of a metric that is measured for every task."""
    return _TITLES[metric]


def format_metric(metric: MetricSpec, value: float | None) -> str:
    """A metric's value as its declaration says: '61.5%', '1.20 letters', '64.0 MiB'."""
    if value is None:
        return MISSING
    in_words = _IN_WORDS.get(metric.unit)
    return in_words(value) if in_words else f"{value:{metric.format}} {metric.unit}".rstrip()


def format_bare(metric: MetricSpec, value: float) -> str:
    """A metric's value without its unit; a percentage without its sign: 0.615 as '61.5'."""
    return f"{metric.scale * value:{_places(metric)}}"


def format_signed(metric: MetricSpec, difference: float) -> str:
    """A difference of two values without the unit that `difference_unit` says: '+12.3' percentage
    points for 0.123; '+1.96 GiB'."""
    if metric.unit in _IN_WORDS:
        return ("-" if difference < 0 else "+") + format_metric(metric, abs(difference))
    return f"{metric.scale * difference:+{_places(metric)}}"


def format_difference(metric: MetricSpec, difference: float) -> str:
    """A difference of two values: '+12.3 points', '-0.25 letters'."""
    return f"{format_signed(metric, difference)} {difference_unit(metric)}".rstrip()


def difference_unit(metric: MetricSpec) -> str:
    if metric.unit in _IN_WORDS:
        return ""
    return "points" if metric.is_percentage else metric.unit


def _places(metric: MetricSpec) -> str:
    return metric.format.removesuffix("%") + "f" if metric.is_percentage else metric.format


def format_percent(share: float | None) -> str:
    """0.615 as '61.5%'."""
    return MISSING if share is None else f"{100 * share:.1f}%"


def format_number(value: float | None, digits: int = 3) -> str:
    """A loss or a rate with `digits` decimals."""
    return MISSING if value is None else f"{value:.{digits}f}"


def format_measured(values: Sequence[float]) -> str:
    """Measured values with three digits: '0.0939', of several the least and the greatest."""
    ends = dict.fromkeys(f"{end:.3g}" for end in (min(values), max(values)))
    return " to ".join(ends)


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


_IN_WORDS = {"bytes": format_bytes, "FLOP": format_flops}  # units that are part of the text
