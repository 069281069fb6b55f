"""Several processes that train one LoRA trial train what one process does, or end with a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import make_spec, make_trial, run
from tests.trainables.workers.rank_team import log, run_ranks, run_team
from trainables.spec.events import Event
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.storage.trial_folder import TrialFolder
from trainables.training.full_evaluation import score_report
from trainables.training.progress import resumed_history

pytestmark = pytest.mark.slow

BUDGET = Budget(train_examples=14, eval_examples=3, rungs=(0.5, 1.0))  # steps 2 and 4
TOLERANCE = 1e-4


def test_lora_on_two_workers_has_the_curve_of_one(tiny_llama: Path, tmp_path: Path) -> None:
    alone = run(_spec(tiny_llama, quantization="nf4"), tmp_path / "alone")
    spec = _spec(tiny_llama, quantization="nf4", workers=2, batch_size=2)
    folder, (first, _) = run_team(spec, tmp_path)
    _assert_same(first, alone)
    assert {file.suffix for file in folder.adapter_folder.iterdir()} >= {".safetensors"}


def test_lora_under_zero_3_that_leaves_and_comes_back_has_the_curve_of_one(
    tiny_llama: Path, tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed", reason="ZeRO is DeepSpeed's")
    alone = run(_spec(tiny_llama), tmp_path / "alone")
    spec = _spec(tiny_llama, workers=2, batch_size=2, zero_stage=3)
    folder, _ = run_team(spec, tmp_path, leave_at=3)
    history = resumed_history(folder)
    assert [event.step for event in history] == [1, 2, 3]
    for file in tmp_path.glob("rank-*.jsonl"):
        file.unlink()
    folder, (first, _) = run_team(spec, tmp_path)
    _assert_same(history + first, alone)
    assert folder.is_sound() and (folder.adapter_folder / "adapter_model.safetensors").exists()
    assert not folder.checkpoints_folder.exists()
    _assert_scored_as_by_one(spec, folder, tmp_path)


def test_ranks_that_have_not_got_the_same_trial_all_end_with_the_reason(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = _spec(tiny_llama, workers=2, batch_size=2)
    other = replace(spec, knobs={**spec.knobs, "learning_rate": 1e-5})
    places = []
    for rank, each in enumerate((spec, other)):
        place = TrialFolder(tmp_path / each.trial_id)
        place.write_spec(each, suggestion={})
        places.append((place.path, tmp_path / f"rank-{rank}.jsonl"))
    codes = run_ranks(places, tmp_path)
    assert codes == [1, 1], log(tmp_path)
    assert log(tmp_path).count("DisagreementError: the trial: workers 1 differ from worker 0") == 2


def _assert_scored_as_by_one(spec: TrialSpec, folder: TrialFolder, tmp_path: Path) -> None:
    """The ranks split the weights, which may be too large for one, and answer as one does."""
    outputs = [tmp_path / f"score-{rank}.json" for rank in range(2)]
    assert run_ranks([(folder.path, out) for out in outputs], tmp_path, scores=1) == [0, 0], log(
        tmp_path
    )
    together = folder.report_score()
    assert together is not None and together["count"] == 4
    assert folder.is_sound() and folder.predictions_file("report").exists()
    alone = score_report(make_trial(spec, tmp_path))
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=TOLERANCE)
    assert {json.loads(out.read_text())["count"] for out in outputs} == {4}


def _spec(model: Path, **knobs: Any) -> TrialSpec:
    return make_spec(model, budget=BUDGET, **knobs)


def _assert_same(found: list[Event], expected: list[Event]) -> None:
    told = [(event.kind, event.step, event.units) for event in found]
    assert told == [(event.kind, event.step, event.units) for event in expected]
    for event, other in zip(found, expected, strict=True):
        for name in {"train_loss", "eval_loss", "learning_rate_now"} & set(other.metrics):
            assert event.metrics[name] == pytest.approx(other.metrics[name], abs=TOLERANCE), name
