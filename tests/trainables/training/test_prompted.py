"""A trial that trains nothing is judged rung by rung, and is done like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.tiny_trials import make_spec, make_trial, run
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.training.loop import train

FEW = Budget(train_examples=16, eval_examples=8, rungs=(0.25, 0.5, 1.0))


def _spec(model: Path, **knobs: Any) -> TrialSpec:
    return make_spec(model, method="prompting", budget=FEW, sequence_length=1024, **knobs)


def test_it_is_judged_on_more_questions_at_each_rung(tiny_llama: Path, tmp_path: Path) -> None:
    events = run(_spec(tiny_llama, shots=1), tmp_path)
    rungs = [event for event in events if event.kind == "rung"]
    assert [event.fraction for event in rungs] == [0.25, 0.5, 1.0]
    assert [event.metrics["em_acc_questions"] for event in rungs] == [2, 4, 8]
    assert [event.units for event in rungs] == [4, 8, 16]
    assert events[-1].kind == "finished" and rungs[-1].metrics["shots_shown"] == 1.0


def test_its_shots_are_kept_with_each_answer(tiny_llama: Path, tmp_path: Path) -> None:
    spec = _spec(tiny_llama, shots=2, shot_selection="similar")
    trial = make_trial(spec, tmp_path)
    list(train(trial))
    encoded = trial.data.split("selection")
    assert all(len(shots) == 2 for shots in encoded.shots)
    summary = trial.folder.summary() or {}
    assert summary["state"] == "finished" and summary["metrics"]["shots_shown"] == 2.0
    assert "trainable_parameters" not in summary["facts"]


def test_without_shots_it_answers_as_the_untrained_base(tiny_llama: Path, tmp_path: Path) -> None:
    prompted = run(_spec(tiny_llama, shots=0), tmp_path / "prompted")
    base = replace(make_spec(tiny_llama, method="untrained", sequence_length=1024), role="baseline")
    untrained = run(base, tmp_path / "untrained")
    assert prompted[-1].metrics["eval_loss"] == untrained[-1].metrics["eval_loss"]
    assert prompted[-1].metrics["em_acc"] == untrained[-1].metrics["em_acc"]


def test_other_shots_are_another_trial(tiny_llama: Path) -> None:
    given: list[dict[str, Any]] = [{"shots": 0}, {"shots": 2}, {"shots": 2, "shot_seed": 1}]
    given += [{"shots": 2, "shot_selection": "similar"}]
    assert len({_spec(tiny_llama, **knobs).trial_id for knobs in given}) == 4
