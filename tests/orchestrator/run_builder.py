"""Builds run folders like those of ended sweeps, for tests of reports and commands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.runs.ledger import TrialRecord
from orchestrator.runs.trial_label import TrialLabels
from trainables.spec.events import Event
from trainables.spec.knobs import canonical
from trainables.spec.states import BASELINE, FINISHED, TRIAL
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

CONFIG: Mapping[str, Any] = {
    "task": "finqa",
    "objective": "em_acc",
    "space": {"model": ["base_models/small"], "quantization": ["none", "nf4"]},
    "search": {"algorithm": "random", "trials": 8},
}


def new_run(folder: Path, config: Mapping[str, Any] = CONFIG) -> RunFolder:
    """A run folder with its configuration and no trials."""
    run = RunFolder(folder)
    run.write_text(run.sweep_file, json.dumps(config))  # JSON is YAML
    return run


def add_trial(
    run: RunFolder,
    *,
    right: Sequence[int] | None = None,
    state: str = FINISHED,
    reason: str = "",
    role: str = TRIAL,
    metrics: Mapping[str, float] | None = None,
    rungs: Mapping[float, float] | None = None,
    report_right: Sequence[int] | None = None,
    prediction: Mapping[str, Any] | None = None,
    **knobs: Any,
) -> TrialFolder:
    """An ended trial; `right` has 0 or 1 per question and determines em_acc.

    `rungs` maps a fraction of the budget to the EmAcc at that rung. If `metrics` contains
    train_flops, each rung has its share of them.
    """
    spec = new_spec(role=role, **knobs)
    folder = run.trial(spec.trial_id)
    folder.write_spec(spec, {})
    if prediction is not None:
        folder.write_estimate(prediction)
    measured = _measured(right) | dict(metrics or {})
    flops = measured.get("train_flops")
    if right is not None:
        folder.write_predictions(question_rows(right))
    folder.write_summary(
        {
            "trial_id": spec.trial_id,
            "role": role,
            "state": state,
            "reason": reason,
            "configuration": spec.knobs,
            "metrics": measured,
            "step": 100,
            "units": 800,
            "fraction": 1.0 if state == FINISHED else 0.25,
            "seconds": {"load": 1.0, "train": 8.0, "eval": 2.0, "total": 11.0},
            "history": [_rung(part, value, flops) for part, value in (rungs or {}).items()],
            "facts": {
                "selection": {"context": "evidence", "evidence": "gold"},
                "train_prompts_cut": 3,
            },
            "provenance": {"git_commit": "0123abc", "torch": "2.13.0", "device": "cpu"},
            "attempts": 1,
        }
    )
    if report_right is not None:
        share = sum(report_right) / len(report_right)
        scores = {"em_acc": share, "em_acc_strict": share, "em_acc_numeric": share}
        folder.write_predictions(question_rows(report_right), "report")
        folder.write_report_score(
            {"split": "report", "metrics": scores, "count": len(report_right)}
        )
    return folder


def trial_label(knobs: Mapping[str, Any]) -> str:
    """The label of a trial among no others."""
    return TrialLabels().of("", knobs)


def label_of(record: TrialRecord) -> str:
    """As `trial_label`."""
    return trial_label(record.spec.knobs)


def add_baseline(run: RunFolder, right: Sequence[int], **knobs: Any) -> TrialFolder:
    """The evaluation of an untrained base."""
    return add_trial(run, right=right, role=BASELINE, method="untrained", **knobs)


def new_spec(*, role: str = TRIAL, **knobs: Any) -> TrialSpec:
    """A spec with the given knobs and defaults for the others."""
    return TrialSpec(
        role="baseline" if role == BASELINE else "trial",
        knobs=canonical({"model": "base_models/small", **knobs}),
        model_digest=str(knobs.get("model", "small")),
        task="finqa",
        task_identity={"context": "full"},
        task_options={},
        budget=Budget(train_examples=800, eval_examples=100),
    )


def question_rows(right: Iterable[int]) -> list[dict[str, Any]]:
    """Predictions for questions q0, q1, ... with a numeric gold."""
    return [
        {"id": f"q{place}", "prediction": "1", "gold": 1.0, "em_acc": score, "em_acc_strict": score}
        for place, score in enumerate(right)
    ]


def outcomes(right: int, count: int = 100) -> list[int]:
    """Outcomes of `count` questions of which the first `right` are right."""
    return [1] * right + [0] * (count - right)


def _measured(right: Sequence[int] | None) -> dict[str, float]:
    if right is None:
        return {}
    share = sum(right) / len(right)
    return {
        "em_acc": share,
        "em_acc_strict": share,
        "em_acc_questions": len(right),
        "eval_loss": 2.0 - share,
        "train_loss": 1.5,
        "train_peak_memory_bytes": 64 * 2**20,
        "eval_peak_memory_bytes": 32 * 2**20,
    }


def _rung(fraction: float, em_acc: float, flops: float | None) -> dict[str, Any]:
    metrics = {"em_acc": em_acc, "eval_loss": 2.0 - em_acc, "em_acc_questions": 100.0}
    metrics |= {} if flops is None else {"train_flops": fraction * flops}
    return Event("rung", int(100 * fraction), int(800 * fraction), metrics, fraction, 3.0).to_json()
