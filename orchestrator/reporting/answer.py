"""The answer of `python -m orchestrator.ask` as a report."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.analysis.best_within import (
    MEMORY,
    TRAIN_FLOPS,
    NearMiss,
    Recommendation,
    Tie,
    error_name,
)
from orchestrator.analysis.significance import wilson
from orchestrator.formatting import (
    counted,
    format_byte_seconds,
    format_bytes,
    format_difference,
    format_duration,
    format_flops,
    format_metric,
    format_number,
)
from orchestrator.reporting.document import Block, Paragraph, Report, Section, Table
from orchestrator.reporting.load_snippet import loading_lines
from orchestrator.reporting.sections.headline import (
    primary_text,
    score_header,
    split_interval_text,
)
from orchestrator.runs.derived_metrics import gpu_memory_bytes, has_gpu_alone, peak_memory_bytes
from orchestrator.runs.predictions import PredictionReader
from orchestrator.runs.progress import progress_text, run_name, wanted_trials
from orchestrator.runs.results import read_config
from orchestrator.runs.trial_result import Split, TrialResult
from trainables.storage.run_folder import RunFolder
from trainables.storage.sealed_json import DamagedError
from trainables.storage.trial_reader import DAMAGED

SHOWN = 8  # ties


def answer_report(run: RunFolder, results: Sequence[TrialResult], found: Recommendation) -> Report:
    """The answer for a terminal; the lines that load the model follow its last heading."""
    question = _question_text(found)
    title = f"Sweep {run_name(run)}"
    state = progress_text(run, results, wanted_trials(read_config(run)[0]))
    asked = Section(question, [Paragraph(state)])
    if found.best is None:
        return Report(title, [asked, Section("None qualifies", _why_not(found))])
    sections = [asked, Section("Answer", _best(found.best, found))]
    sections.append(Section("It ties with", _ties(found)))
    sections.append(Section("How to load it", []))
    return Report(title, sections)


def _question_text(found: Recommendation) -> str:
    asked, metric = found.question, found.metric
    limits = []
    if asked.gpu_memory is not None:
        limits.append(f"in {format_bytes(asked.gpu_memory)}")
    if asked.reach is not None:
        bound = "more" if metric.direction == "maximize" else "less"
        limits.append(f"with {metric.title} of {format_metric(metric, asked.reach)} or {bound}")
    return " ".join([_aim_text(found), *limits])


def _aim_text(found: Recommendation) -> str:
    if found.question.minimize == MEMORY:
        return "The least memory"
    if found.question.minimize == TRAIN_FLOPS:
        return "The fewest train FLOPs"
    best = "highest" if found.metric.direction == "maximize" else "lowest"
    return f"The {best} {found.metric.title}"


def _best(item: TrialResult, found: Recommendation) -> list[Block]:
    blocks: list[Block] = [
        Paragraph(f"`{item.trial_id}`: {item.label}", strong=True),
        Table(["", "value"], _numbers(item), words=2),
    ]
    return [*blocks, *(Paragraph(text) for text in _caveats(item, found))]


def _numbers(item: TrialResult) -> list[tuple[str, str]]:
    metrics, metric = item.metrics, item.primary
    report = _primary_text(item, "report") if item.report_metrics else "not scored there"
    of = "of" if metric.is_share_of_questions else "over"
    return [
        (score_header(metric), f"{_primary_text(item)} {of} {counted(item.count(), 'question')}"),
        (f"{metric.title} on the report split", report),
        ("eval loss", format_number(metrics.get("eval_loss"))),
        ("GPU memory", _memory_text(item)),
        ("train FLOPs, evaluation FLOPs", _flops_text(item)),
        ("device time", format_duration(metrics.get("device_seconds"))),
        ("memory x time", format_byte_seconds(item.costs.get("memory_byte_seconds"))),
        ("measured on", str(item.provenance.get("device", "unknown"))),
    ]


def _primary_text(item: TrialResult, split: Split = "selection") -> str:
    """The primary metric with its interval, whatever kind it is of."""
    text = primary_text(item, split)
    interval = split_interval_text(item.primary, PredictionReader()(item, split))
    return f"{text} (95% {interval})" if interval else text


def _memory_text(item: TrialResult) -> str:
    """The GPU memory and its two parts."""
    whole, peak = gpu_memory_bytes(item.metrics), peak_memory_bytes(item.metrics)
    if whole is None or peak is None:
        return "not measured"
    seen = "seen" if has_gpu_alone(item.metrics) else "assumed"
    beside = f"{format_bytes(whole - peak)} {seen} for CUDA"
    return f"{format_bytes(whole)}: tensors {format_bytes(peak)}, {beside}"


def _flops_text(item: TrialResult) -> str:
    counted = [item.metrics.get(name) for name in ("train_flops", "eval_flops")]
    return ", ".join(map(format_flops, counted)) if any(counted) else "not counted"


def _caveats(item: TrialResult, found: Recommendation) -> list[str]:
    texts = []
    if item.value("report") is None:
        texts.append(
            f"The selection split chose it, so its {item.primary.title} there flatters it."
        )
    texts += _uncertain(item, found)
    if item.provenance.get("device_type") == "cpu" and found.question.gpu_memory is not None:
        texts.append("It was measured on a CPU: on a GPU other kernels take other memory.")
    faults = item.folder.unusable_adapter()
    if faults:
        file, fault = next(iter(faults.items()))
        is_damaged = fault == DAMAGED
        text = "Don't use its adapter: {} is {}." if is_damaged else "Its adapter: {} {}."
        texts.append(text.format(file, fault))
    return texts


def _uncertain(item: TrialResult, found: Recommendation) -> list[str]:
    """Whether the interval of a share holds values that are not good enough."""
    reach, value, metric = found.question.reach, item.value(), found.metric
    if reach is None or value is None or not metric.is_share_of_questions:
        return []
    low, high = wilson(value, item.count())
    asked = format_metric(metric, reach)
    if metric.direction == "maximize":
        below = low < reach
        return [f"Its interval reaches below the {asked} that were asked for."] if below else []
    return [f"Its interval reaches above the {asked} that were asked for."] if high > reach else []


def _ties(found: Recommendation) -> list[Block]:
    blocks: list[Block] = []
    if not found.ties:
        blocks.append(Paragraph("None: of those that qualify, none can be taken for it."))
    else:
        headers = ["trial", "configuration", found.metric.title, "train FLOPs", "GPU memory", "p"]
        rows = [_tie_row(tie) for tie in found.ties[:SHOWN]]
        blocks.append(Table(headers, rows, words=2))
    if len(found.ties) > SHOWN:
        blocks.append(Paragraph(f"{len(found.ties) - SHOWN} more; --json names all."))
    if found.not_compared:
        others = counted(found.not_compared, "other")
        verb = "has" if found.not_compared == 1 else "have"
        text = f"{others} {verb} no sound predictions to compare with."
        blocks.append(Paragraph(text))
    return blocks


def _tie_row(tie: Tie) -> tuple[str, ...]:
    item = tie.trial
    return (
        item.trial_id,
        item.label,
        format_metric(item.primary, item.value()),
        format_flops(item.metrics.get("train_flops")),
        format_bytes(gpu_memory_bytes(item.metrics)),
        f"{tie.p_value:.2g}",
    )


def _why_not(found: Recommendation) -> list[Block]:
    blocks: list[Block] = [Paragraph(_considered_text(found))]
    for miss in found.misses:
        blocks.append(Paragraph(f"Closest: `{miss.trial.trial_id}`, {_miss_text(miss, found)}."))
    return blocks


def _considered_text(found: Recommendation) -> str:
    if found.considered:
        trials = counted(found.considered, "finished trial")
        return f"None of {trials} is within the limits."
    if not found.unmeasured:
        return "No trial has finished."
    what = found.question.minimize or error_name(found.metric)
    why = ": they had no prediction to count by" if what == TRAIN_FLOPS else ""
    trials = counted(found.unmeasured, "trial has finished", "trials have finished")
    return f"{trials}, none with {what} measured{why}."


def _miss_text(miss: NearMiss, found: Recommendation) -> str:
    item, asked, metric = miss.trial, found.question, found.metric
    value = format_metric(metric, item.value())
    memory = format_bytes(gpu_memory_bytes(item.metrics))
    faults = []
    if miss.excess_bytes > 0:
        more = format_bytes(miss.excess_bytes)
        faults.append(f"needs {more} more than {format_bytes(asked.gpu_memory)}")
    if miss.lacking > 0:
        by = format_difference(metric, miss.lacking).lstrip("+")
        faults.append(f"lacks {by} of the {metric.title} asked for")
    return f"{item.label} ({metric.title} {value}, {memory}): {' and '.join(faults)}"


def answer_lines(best: TrialResult | None) -> list[str]:
    if best is None:
        return []
    if best.folder.model_was_removed:
        return ["# Its model was removed from its folder: there is nothing to load."]
    try:
        best.folder.pull_trained()
        return loading_lines(best.folder)
    except (OSError, DamagedError) as error:
        return [f"# it can't be read: {error}"]
