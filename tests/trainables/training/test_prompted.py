"""A trial that trains nothing is judged rung by rung, and is done like any other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import make_spec, make_trial, run
from trainables.data.token_lengths import TokenLengths
from trainables.errors import InputError
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.training.loop import train
from trainables.training.progress import resumed_history

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
    written = trial.folder.predictions_file().read_text().splitlines()
    kept = {row["id"]: tuple(row["shots"]) for row in map(json.loads, written)}
    encoded = trial.data.split("selection")
    ids = [example.id for example in encoded.examples]
    assert kept == dict(zip(ids, encoded.shots, strict=True))
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


def test_it_resumes_after_its_last_rung(tiny_llama: Path, tmp_path: Path) -> None:
    spec = _spec(tiny_llama, shots=1)
    trial = make_trial(spec, tmp_path / "one")
    running = train(trial)
    first = next(running)
    running.close()
    assert [event.fraction for event in resumed_history(trial.folder)] == [first.fraction]
    rest = list(train(trial))
    assert [(event.step, event.fraction) for event in rest] == [(2, 0.5), (3, 1.0), (3, 1.0)]
    whole = make_trial(spec, tmp_path / "whole")
    list(train(whole))
    ended = [each.folder.summary() or {} for each in (trial, whole)]
    assert [summary["attempts"] for summary in ended] == [2, 1]
    assert len(ended[0]["history"]) == len(ended[1]["history"]) == 3
    for name in ("eval_loss", "em_acc", "shots_shown"):
        assert ended[0]["metrics"][name] == ended[1]["metrics"][name]
    files = [each.folder.predictions_file() for each in (trial, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not trial.folder.checkpoints_folder.exists()


def test_damaged_predictions_of_the_last_rung_are_made_again(
    tiny_llama: Path, tmp_path: Path
) -> None:
    trial = make_trial(_spec(tiny_llama, shots=1), tmp_path)
    running = train(trial)
    told = [next(running) for _ in FEW.rungs]
    running.close()
    written = trial.folder.predictions_file().read_bytes()
    trial.folder.predictions_file().write_bytes(written[:-9])
    assert [event.kind for event in train(trial)] == ["finished"]
    assert trial.folder.predictions_file().read_bytes() == written
    summary = trial.folder.summary() or {}
    assert summary["history"] == [event.to_json() for event in told]


def test_a_question_that_lost_shots_is_counted_or_the_trial_is_refused(
    tiny_llama: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"shots": 8, "sequence_length": 256}
    spec = make_spec(tiny_llama, method="prompting", budget=FEW, **given)
    trial = make_trial(spec, tmp_path)
    list(train(trial))
    summary = trial.folder.summary() or {}
    lost = summary["facts"]["eval_questions_with_fewer_shots"]
    assert 0 < lost <= 8 and summary["metrics"]["shots_shown"] < 8
    refused = make_spec(tiny_llama, method="prompting", shots_too_long="refuse", **given)
    with pytest.raises(InputError, match=r"shots: got 8 .*needs \d+.*shots_too_long: drop"):
        make_trial(refused, tmp_path).data.split("selection")
    with pytest.raises(InputError, match="do not all fit into 256 tokens"):
        TokenLengths(None).splits(refused, positions=None)


def test_the_train_split_is_read_without_shots(tiny_llama: Path, tmp_path: Path) -> None:
    asked, plain = _spec(tiny_llama, shots=4), _spec(tiny_llama, shots=0)
    assert not make_trial(asked, tmp_path).data.split("train").shots
    lengths = [TokenLengths(None).split(spec, "train", positions=None) for spec in (asked, plain)]
    assert lengths[0] == lengths[1]


def test_other_shots_are_another_trial(tiny_llama: Path) -> None:
    given: list[dict[str, Any]] = [{"shots": 0}, {"shots": 2}, {"shots": 2, "shot_seed": 1}]
    given += [{"shots": 2, "shot_selection": "similar"}]
    assert len({_spec(tiny_llama, **knobs).trial_id for knobs in given}) == 4
