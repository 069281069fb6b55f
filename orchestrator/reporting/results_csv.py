"""results.csv: one row per trial and baseline. LIGHT."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.runs.derived_metrics import PREDICTED
from orchestrator.runs.results import read_trials
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.knobs import KNOBS
from trainables.storage.run_folder import RunFolder

METRICS = (
    "em_acc",
    "em_acc_strict",
    "em_acc_numeric",
    "f1",
    "em_acc_questions",
    "eval_loss",
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
REPORT_METRICS = ("em_acc", "em_acc_strict", "em_acc_numeric", "f1", "eval_loss")
SECONDS = ("load", "train", "eval", "total")


def write_results(run: RunFolder, results: Sequence[TrialResult] | None = None) -> Path:
    """Writes results.csv: a row per trial and baseline, absent values empty, floats exact.

    Columns: trial_id, role, state, reason; context and evidence of what was asked; every knob by
    its name; the metrics on the selection split, with what was predicted and what it cost
    (docs/cost.md); report_* on the report split; how far it came; seconds_*.
    """
    rows = [_flat(result) for result in (read_trials(run) if results is None else results)]
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), restval="", lineterminator="\n")
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


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Always the same ones first, in the same order, so that a reader may rely on them."""
    before = ["trial_id", "role", "state", "reason", "context", "evidence", *KNOBS, *METRICS]
    report = [*(f"report_{name}" for name in REPORT_METRICS), "report_questions"]
    seconds = [f"seconds_{name}" for name in SECONDS]
    after = [*report, "step", "units", "fraction", *seconds, "attempts"]
    seen = {name for row in rows for name in row}
    return [*before, *sorted(seen.difference(before, after)), *after]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return value if isinstance(value, str) else json.dumps(value)
