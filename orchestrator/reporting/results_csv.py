"""results.csv: one row for each trial and baseline."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.runs.derived_metrics import PREDICTED
from orchestrator.runs.results import read_metrics, read_trials
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.knobs import KNOBS
from trainables.spec.metric import EVAL_LOSS, TaskMetrics
from trainables.storage.run_folder import RunFolder

MEASURED = (  # of every trial, whatever its task
    EVAL_LOSS.name,
    "train_loss",
    "train_peak_memory_bytes",
    "eval_peak_memory_bytes",
    "process_peak_memory_bytes",
    "allocated_peak_memory_bytes",
    "reserved_peak_memory_bytes",
    "device_peak_memory_bytes",
    *PREDICTED,
    "train_flops",
    "eval_flops",
    "device_seconds",
    "device_shared",
    "memory_byte_seconds",
    "examples_per_second",
    "tokens_seen",
)
SECONDS = ("load", "train", "eval", "total")


def write_results(run: RunFolder, results: Sequence[TrialResult] | None = None) -> Path:
    """Writes results.csv: a row for each trial and baseline, absent values empty, floats exact.

    Columns: trial_id, role, state, reason; context and evidence of the prompts; every knob by its
    name, some only where a trial has them; the metrics on the selection split,
    those of the task first, with what was predicted and what it cost (docs/cost.md); report_* on
    the report split; how far it came; seconds_*.
    """
    rows = [_flat(result) for result in (read_trials(run) if results is None else results)]
    text = io.StringIO()
    columns = _columns(rows, read_metrics(run).task)
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    run.write_text(run.results_file, text.getvalue())
    return run.results_file


def _flat(result: TrialResult) -> dict[str, Any]:
    return {
        "trial_id": result.trial_id,
        "role": result.role,
        "state": result.state,
        "reason": result.reason,
        "context": result.context,
        "evidence": result.evidence,
        **result.knobs,
        **result.metrics,
        **result.costs,
        **{f"report_{name}": value for name, value in result.report_metrics.items()},
        "report_questions": result.report_count or None,
        "step": result.step,
        "units": result.units,
        "fraction": result.fraction,
        **{f"seconds_{name}": value for name, value in result.seconds.items()},
        "attempts": result.attempts,
    }


def _columns(rows: Sequence[Mapping[str, Any]], metrics: TaskMetrics) -> list[str]:
    """The columns; those of the task are always first and in the same order."""
    own = [*(spec.name for spec in metrics.specs), *metrics.other_columns]
    said = {name for row in rows for name in row}
    knobs = [name for name, row in KNOBS.items() if row.has_column or name in said]
    asked = ["trial_id", "role", "state", "reason", "context", "evidence", *knobs]
    before = [*dict.fromkeys([*asked, *own, metrics.count_key, *MEASURED])]
    scored = dict.fromkeys([*own, EVAL_LOSS.name])
    report = [*(f"report_{name}" for name in scored), "report_questions"]
    seconds = [f"seconds_{name}" for name in SECONDS]
    after = [*report, "step", "units", "fraction", *seconds, "attempts"]
    return [*before, *sorted(said.difference(before, after)), *after]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return value if isinstance(value, str) else json.dumps(value)
