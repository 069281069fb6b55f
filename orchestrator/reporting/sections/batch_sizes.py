"""The section on batch sizes: speed and memory of each, and the best one."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.analysis.batch_sizes import ASSUMED_NOISE, BatchSize, Study, studies
from orchestrator.formatting import MISSING, counted, format_bytes, is_or_are
from orchestrator.reporting.document import Block, Paragraph, Section, Table
from orchestrator.runs.progress import counts_text
from orchestrator.runs.trial_label import common_words, quantization_name, told_apart
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.knob_values import AUTO

HEADING = "Speed and memory by batch size"
SHOWN = 4  # studies, where a sweep varies more than the batch
HOW = (
    "Examples per second of training, evaluations not counted: the median of finished trials that "
    "had their device alone and differ in nothing else that speed or memory depends on."
)
NONE_ALONE = (
    "Several batch sizes were tried, but no finished trial is known to have had its device alone, "
    "so nothing is said of their speed. For that: `resources: {placement: exclusive}`."
)


def batch_sizes(results: Sequence[TrialResult]) -> list[Section]:
    """Examples per second and peak memory by batch size, and the best one; no section if no two
    trials differ in their batch size alone."""
    found = studies(results)
    timed = [study for study in found if len(study.timed) > 1]
    if timed:
        shown = timed[:SHOWN]
        names = told_apart(list(map(_name, shown)), list(map(_common_label, shown)))
        blocks = [
            block for name, study in zip(names, shown, strict=True) for block in _study(study, name)
        ]
        return [Section(HEADING, [*blocks, Paragraph(HOW), *_left_out(len(timed) - SHOWN)])]
    trials = sum(item.is_trial for item in results)
    is_all = any(sum(len(size.trials) for size in study.sizes) == trials for study in found)
    return [Section(HEADING, [Paragraph(NONE_ALONE)])] if is_all else []


def _study(study: Study, name: str) -> list[Block]:
    headers = ["batch size", "accumulation", "examples per step", "trials", "examples/s",
               "slowest–fastest", "of the best", "train memory", ""]  # fmt: skip
    ties = study.ties
    rows = [_row(size, study, is_tie=size in ties) for size in study.sizes]
    return [
        Table(headers, rows, words=1, caption=f"{name}:"),
        Paragraph(_best(study), strong=True),
        Paragraph(_others(study, ties)),
    ]


def _row(size: BatchSize, study: Study, *, is_tie: bool) -> tuple[str, ...]:
    parts = size.step_examples // max(1, size.rows * int(size.knobs.get("workers", 1)))
    shape = (_words(size), str(parts) if size.rows else MISSING, str(size.step_examples))
    if not size.alone:
        return (*shape, counts_text(size.trials), *[MISSING] * 4, "no speed")
    speeds = size.speeds
    verdict = "best" if size is study.best else "tie" if is_tie else ""
    return (
        *shape,
        str(len(speeds)),
        _speed(size.speed),
        f"{_speed(speeds[0])}–{_speed(speeds[-1])}",
        f"{100 * size.speed / study.best.speed:.0f}%",
        format_bytes(size.memory_bytes),
        verdict,
    )


def _best(study: Study) -> str:
    best, smallest = study.best, study.sizes[0]
    text = f"batch_size {_words(best)} trains fastest: {_speed(best.speed)} examples/s"
    if best is smallest or not smallest.alone:
        return f"{text}, in {format_bytes(best.memory_bytes)}."
    return (
        f"{text}, {best.speed / smallest.speed:.2g} times as many as batch_size {_words(smallest)}"
        f", in {format_bytes(best.memory_bytes)} instead of {format_bytes(smallest.memory_bytes)}."
    )


def _others(study: Study, ties: Sequence[BatchSize]) -> str:
    noise = study.noise
    if noise is None:
        test = f"no batch size was tried twice: less than {100 * ASSUMED_NOISE:.0f}% counts as none"
    else:
        test = f"t test at 5%; trials of one batch size differ by {100 * noise:.1f}%"
    if not ties:
        return f"No other ties with it ({test})."
    names = ", ".join(_words(size) for size in ties)
    verb = "ties" if len(ties) == 1 else "tie"
    found = f"batch_size {names} {verb} with it: no difference in speed found ({test})."
    return found + _least(ties, study)


def _least(ties: Sequence[BatchSize], study: Study) -> str:
    """The one of the fastest that takes the least memory, if it is not the best one."""
    known = [size for size in (study.best, *ties) if size.memory_bytes is not None]
    least = min(known, key=lambda size: size.memory_bytes or 0.0, default=study.best)
    if least is study.best:
        return ""
    takes = f"takes the least memory: {format_bytes(least.memory_bytes)}"
    return f" Of these batch_size {_words(least)} {takes}."


def _name(study: Study) -> str:
    first = study.sizes[0].trials[0]
    parts = [first.model_name, quantization_name(first.knobs), str(first.knobs.get("method", ""))]
    return " ".join(part for part in (*parts, f"on {study.device}" if study.device else "") if part)


def _common_label(study: Study) -> str:
    return common_words([item.label for size in study.sizes for item in size.trials])


def _words(size: BatchSize) -> str:
    if size.knobs["batch_size"] != AUTO:
        return str(size.rows)
    return f"{AUTO} ({size.rows})" if size.rows else AUTO


def _speed(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _left_out(count: int) -> list[Paragraph]:
    groups = f"{counted(count, 'more group')} of like trials {is_or_are(count)} not shown."
    return [Paragraph(groups)] if count > 0 else []
