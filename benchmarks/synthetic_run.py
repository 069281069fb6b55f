"""A run folder of finished trials whose numbers and predictions are drawn from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.spec.events import Event
from trainables.spec.knobs import canonical
from trainables.spec.states import BASELINE, FINISHED, TRIAL
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

QUANTIZATIONS = ("none", "int8", "nf4", "fp4")
KINDS = ("sum", "ratio", "difference", "share", "yes or no")
EXAMPLES, REPORT_SCORED = 6000, 5
ADAPTER_BYTES = 64 * 1024  # damage() reads every adapter; a large one costs what sha256 costs


@dataclass(frozen=True)
class Scale:
    """The size of a synthetic run."""

    trials: int
    questions: int
    is_grid: bool
    seed: int


def make_run(folder: Path, scale: Scale) -> RunFolder:
    """A run folder as a sweep of finished trials leaves it, with a baseline per quantization.

    Each question has a difficulty, each trial a skill: that makes answers correlated, as they are.
    """
    run = RunFolder(folder)
    generator = random.Random(scale.seed)
    difficulties = [generator.random() for _ in range(scale.questions)]
    run.write_text(run.sweep_file, json.dumps(_config(scale)))
    run.write_state({"sweep_id": "benchmark", "trials_done": scale.trials})
    for quantization in QUANTIZATIONS:
        knobs = {"method": "untrained", "quantization": quantization}
        _add_trial(run, BASELINE, knobs, difficulties, skill=0.05, generator=generator)
    skills: dict[TrialFolder, float] = {}
    for knobs in _configurations(scale, generator):
        skill = generator.uniform(0.2, 0.7)
        added = _add_trial(run, TRIAL, knobs, difficulties, skill=skill, generator=generator)
        skills[added] = skill
    for added in sorted(skills, key=lambda each: -skills[each])[:REPORT_SCORED]:
        _score_report(added, difficulties, skill=skills[added], generator=generator)
    return run


def _config(scale: Scale) -> dict[str, Any]:
    return {
        "task": "finqa",
        "objective": "em_acc",
        "space": {"model": ["base_models/small"], "quantization": [*QUANTIZATIONS]},
        "search": {"algorithm": "grid" if scale.is_grid else "random", "trials": scale.trials},
    }


def _configurations(scale: Scale, generator: random.Random) -> Iterator[dict[str, Any]]:
    for place in range(scale.trials):
        if not scale.is_grid or place % len(QUANTIZATIONS) == 0:
            rate = 10 ** generator.uniform(-5, -2)
            knobs = {
                "rank": generator.choice((4, 8, 16, 32)),
                "learning_rate": rate,
                "batch_size": generator.choice((4, 8, 16)),
                "warmup": generator.choice((0.0, 0.03, 0.1)),
            }
        yield {**knobs, "quantization": QUANTIZATIONS[place % len(QUANTIZATIONS)]}


def _add_trial(
    run: RunFolder,
    role: str,
    knobs: Mapping[str, Any],
    difficulties: Sequence[float],
    *,
    skill: float,
    generator: random.Random,
) -> TrialFolder:
    spec = TrialSpec(
        role="baseline" if role == BASELINE else "trial",
        knobs=canonical({"model": "base_models/small", **knobs}),
        model_digest="small",
        task="finqa",
        task_identity={"context": "full", "evidence": "none"},
        task_options={},
        budget=Budget(train_examples=EXAMPLES, eval_examples=200, rungs=(0.25, 0.5, 1.0)),
    )
    folder = run.trial(spec.trial_id)
    rows = _rows(difficulties, skill, generator)
    metrics = _metrics(rows, generator)
    folder.write_spec(spec, {})
    folder.write_estimate({"train_memory_bytes": 5e9, "eval_memory_bytes": 4e9,
                           "train_flops": 3e15, "eval_flops": 3e14})  # fmt: skip
    folder.write_predictions(rows)
    folder.write_adapter(lambda place: _write_adapter(place, generator))
    folder.write_summary(_summary(spec, metrics))
    return folder


def _write_adapter(place: Path, generator: random.Random) -> None:
    place.mkdir()
    (place / "adapter_model.safetensors").write_bytes(generator.randbytes(ADAPTER_BYTES))


def _score_report(
    folder: TrialFolder,
    difficulties: Sequence[float],
    *,
    skill: float,
    generator: random.Random,
) -> None:
    rows = _rows(difficulties, skill, generator)
    folder.write_predictions(rows, "report")
    metrics = {name: value for name, value in _metrics(rows, generator).items() if "em" in name}
    folder.write_report_score({"split": "report", "metrics": metrics, "count": len(rows)})


def _rows(
    difficulties: Sequence[float], skill: float, generator: random.Random
) -> list[dict[str, Any]]:
    """Answers: the easier a question, the more trials have it right."""
    found = []
    for place, difficulty in enumerate(difficulties):
        is_right = generator.random() < (skill / (skill + difficulty)) ** 2
        gold = round(100 * difficulty, 2)
        found.append(
            {
                "id": f"DEV/{place % 97}/page_{place % 13}.pdf-{place}",
                "kind": KINDS[place % len(KINDS)],
                "question": f"what was the change in the fair value of item {place} in millions?",
                "prediction": str(gold if is_right else round(gold + 1, 2)),
                "gold": gold,
                "em_acc": is_right,
                "em_acc_strict": is_right,
                "no_marker": False,
                "percent_scale": False,
                "parsed": True,
                "numeric": True,
            }
        )
    return found


def _metrics(rows: Sequence[Mapping[str, Any]], generator: random.Random) -> dict[str, float]:
    share = sum(row["em_acc"] for row in rows) / len(rows)
    return {
        "em_acc": share,
        "em_acc_strict": share,
        "em_acc_numeric": share,
        "em_acc_questions": float(len(rows)),
        "eval_loss": 2.0 - share,
        "train_loss": 1.5,
        "train_peak_memory_bytes": generator.uniform(3e9, 6e9),
        "eval_peak_memory_bytes": generator.uniform(2e9, 5e9),
        "examples_per_second": generator.uniform(20, 60),
        "device_seconds": generator.uniform(100, 300),
        "device_shared": 0.0,
        "train_flops": generator.uniform(2e15, 4e15),
        "eval_flops": generator.uniform(2e14, 4e14),
    }


def _summary(spec: TrialSpec, metrics: Mapping[str, float]) -> dict[str, Any]:
    history = [
        Event("rung", round(100 * part), round(part * EXAMPLES),
              {**metrics, "train_flops": part * metrics["train_flops"], "em_acc_questions": 200.0},
              part, 100.0 * part)
        for part in spec.budget.rungs
    ]  # fmt: skip
    facts = {"context": "full", "evidence": "none", "examples": EXAMPLES}
    return {
        "trial_id": spec.trial_id,
        "role": spec.role,
        "state": FINISHED,
        "reason": "",
        "configuration": spec.knobs,
        "metrics": dict(metrics),
        "step": 100,
        "units": EXAMPLES,
        "fraction": 1.0,
        "seconds": {"load": 5.0, "train": 100.0, "eval": 30.0, "total": 135.0},
        "history": [event.to_json() for event in history],
        "facts": {"train": facts, "selection": facts, "executed_eval_batch": 32},
        "provenance": {"git_commit": "0" * 40, "torch": "2.13.0", "device": "synthetic"},
        "attempts": 1,
    }
