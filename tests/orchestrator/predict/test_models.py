"""Trials, runs and plain models are resolved to models to ask, or refused in one error."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.predict.models import (
    ModelUnderTest,
    asked_models,
    is_trial_reference,
    untrained,
)
from orchestrator.runs.results import read_trials
from tests.orchestrator.run_builder import (
    CONFIG,
    add_baseline,
    add_trial,
    new_run,
    new_spec,
    outcomes,
)
from trainables.errors import InputError
from trainables.methods.registry import METHODS
from trainables.spec.states import STATES
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

TRAINED = [name for name, method in METHODS.items() if method.trains]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "run")


def finished(run: RunFolder, *, right: int = 50, **knobs: Any) -> TrialFolder:
    """A finished trial with what it trained, and nothing in it that could be loaded."""
    spec = new_spec(**knobs)
    place = run.trial(spec.trial_id)
    write = place.write_model if spec.method.saves_model else place.write_adapter
    write(_fill)
    return add_trial(run, right=outcomes(right), **knobs)


def _fill(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "weights").write_text("those of the trial")


def refused(*names: str | Path, **options: Any) -> str:
    with pytest.raises(InputError) as told:
        asked_models([str(name) for name in names], **options)
    return "\n".join(told.value.messages)


def test_a_text_that_is_too_long_for_a_path_is_no_trial() -> None:
    assert not is_trial_reference("x" * 300) and not is_trial_reference(f"runs/{'x' * 5000}")


@pytest.mark.parametrize("method", TRAINED)
def test_a_trial_of_every_method_comes_with_its_base(method: str, run: RunFolder) -> None:
    folder = finished(run, method=method)
    base, trial = asked_models([str(folder.path)])
    assert (base.kind, trial.kind) == ("base", METHODS[method].title)
    assert base.trained is None and base.name == "small"
    assert trial.trained is not None and trial.trained.is_dir() and trial.name == folder.trial_id
    assert trial.spec == folder.spec()
    assert base.spec.base_key == trial.spec.base_key and base.label.startswith("small none")
    assert [each.kind for each in asked_models([str(folder.path)], with_bases=False)] == [
        trial.kind
    ]


def test_every_method_has_a_title_of_its_own() -> None:
    titles = {method.title for method in METHODS.values()}
    assert len(titles) == len(METHODS) and "" not in titles


def test_two_trials_share_their_base_and_another_quantization_has_its_own(run: RunFolder) -> None:
    trials = [finished(run, rank=4), finished(run, rank=8), finished(run, quantization="nf4")]
    models = asked_models([str(each.path) for each in trials])
    assert [each.kind for each in models] == ["base", "LoRA", "LoRA", "base", "LoRA"]


def test_the_baseline_that_the_sweep_judged_is_the_base(run: RunFolder) -> None:
    folder, judged = finished(run), add_baseline(run, outcomes(3))
    assert judged.trial_id == untrained(folder.spec()).trial_id
    base, _ = asked_models([str(folder.path)])
    assert base.folder is not None and base.folder.path == judged.path
    (alone,) = asked_models([str(judged.path)])
    assert alone.kind == "base" and alone.trained is None


def test_a_run_is_its_best_finished_trial_that_can_be_asked(run: RunFolder) -> None:
    finished(run, right=40, rank=2)
    best = finished(run, right=60, rank=4)
    gone = finished(run, right=80, method="full")
    gone.discard_model("beaten by another")
    add_trial(run, right=outcomes(90), rank=64, state="stopped")
    assert asked_models([str(run.path)])[1].name == best.trial_id
    assert "no trial has finished" in refused(new_run(run.path.parent / "empty").path)


def test_a_trial_has_the_label_that_its_sweep_gives_it(tmp_path: Path) -> None:
    space = {"model": "base_models/small", "optimizer": ["adamw", "sgd"], "seed": [1, 2]}
    run = new_run(tmp_path / "run", {**CONFIG, "space": space})
    trial = finished(run, optimizer="sgd", seed=2)
    (result,) = read_trials(run)
    (asked,) = asked_models([str(trial.path)], with_bases=False)
    assert asked.label == result.label and asked.label.endswith("sgd seed2")
    again = new_run(tmp_path / "again")
    pair = [str(trial.path), str(finished(again, optimizer="sgd", seed=2, schedule="cosine").path)]
    labels = [each.label for each in asked_models(pair, with_bases=False)]
    assert labels[0] == result.label and labels[1].endswith("b8x1")
    pair[1] = str(finished(again, optimizer="sgd", seed=3).path)
    labels = [each.label for each in asked_models([pair[1], pair[1], *pair], with_bases=False)]
    assert len(set(labels)) == len(labels) == 2


@pytest.mark.parametrize("state", [state for state in STATES if state != "finished"])
def test_a_trial_that_has_not_finished_is_refused(state: str, run: RunFolder) -> None:
    folder = add_trial(run, state=state, reason="a reason")
    assert f"the trial is {state} (a reason); only finished" in refused(folder.path)


def test_all_trials_that_can_not_be_asked_are_told_at_once(run: RunFolder) -> None:
    removed = finished(run, method="full")
    removed.discard_model("beaten by another")
    torn = finished(run, rank=2)
    (torn.adapter_folder / "weights").write_text("something else")
    summary = finished(run, rank=4)
    summary.summary_file.write_text("{")
    spec = finished(run, rank=16)
    spec.spec_file.write_text("{}")
    running = new_spec(rank=32)
    run.trial(running.trial_id).write_spec(running, {})
    places = [removed.path, torn.path, summary.path, spec.path]
    lines = refused(
        *places, run.trials_folder / running.trial_id, run.trials_folder / "absent"
    ).splitlines()
    for line, place, part in zip(
        lines,
        [*places, running.trial_id, "absent"],
        ["its model was removed: beaten by another. Train it again", "weights is damaged or gone",
         "summary.json is damaged", "spec.json can't be read: damaged", "has not finished",
         "no such trial. "],
        strict=True,
    ):  # fmt: skip
        assert str(place) in line and part in line
    assert running.trial_id in lines[-1] or ", ..." in lines[-1]  # what there is instead


def other(run: RunFolder, **changes: Any) -> TrialFolder:
    """A finished trial whose spec is another."""
    spec: TrialSpec = replace(new_spec(rank=2), **changes)
    folder = run.trial(spec.trial_id)
    folder.write_spec(spec, {})
    folder.write_adapter(_fill)
    folder.write_summary({"state": "finished", "metrics": {"em_acc": 1.0}})
    return folder


def test_trials_of_another_task_or_other_data_are_not_compared(run: RunFolder) -> None:
    first = finished(run)
    task = other(run, task="tatqa")
    data = other(run, task_identity={"context": "full", "data": {"selection": "another"}})
    text = refused(first.path, task.path, data.path)
    assert f"{task.path}: it can't be compared with {first.path}: its task is tatqa" in text
    assert f"{data.path}: it can't be compared" in text and "other data" in text


def test_a_plain_model_is_asked_as_the_first_trials_base(
    run: RunFolder, base_models: Path, tmp_path: Path
) -> None:
    folder = finished(run, model=str(base_models / "small"), prompt="statements")
    models = asked_models([str(base_models / "large"), str(folder.path)], quantization="nf4")
    assert [each.kind for each in models] == ["model", "base", "LoRA"]
    assert models[0].spec.knobs["prompt"] == "statements" and models[0].name == "large"
    assert models[0].label.startswith("large nf4") and models[0].trained is None
    assert "does not exist" in refused(folder.path, tmp_path / "nowhere")
    assert "holds an adapter" in refused(folder.path, adapter(tmp_path / "adapter"))


def adapter(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_as_many_are_asked_at_once_as_the_sweep_has_noted_or_else_as_were_foretold(
    run: RunFolder,
) -> None:
    folder = finished(run)
    (trial,) = asked_models([str(folder.path)], with_bases=False)
    assert trial.eval_batch("selection") is None  # as its spec says
    folder.write_estimate({"eval_batch": 5})
    assert (trial.eval_batch("selection"), trial.eval_batch("report")) == (5, None)
    folder.write_estimate({"eval_batch": 500})
    assert trial.eval_batch("selection") == trial.spec.execution.eval_batch_size
    folder.write_summary({**(folder.summary() or {}), "facts": {"executed_eval_batch": 3}})
    folder.write_report_score({"metrics": {}, "facts": {"executed_eval_batch": 2}})
    assert (trial.eval_batch("selection"), trial.eval_batch("report")) == (3, 2)
    base = ModelUnderTest(untrained(trial.spec))
    assert base.eval_batch("selection") is None


def test_a_baseline_is_asked_as_many_as_its_spec_says_whatever_was_foretold(
    run: RunFolder,
) -> None:
    folder = add_baseline(run, outcomes(3))
    folder.write_estimate({"eval_batch": 5})
    (base,) = asked_models([str(folder.path)])
    assert base.eval_batch("selection") is None  # so it was judged


def test_a_folder_called_trials_makes_nothing_a_trial(
    base_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "trials"
    best = finished(new_run(runs / "one"))
    (trial,) = asked_models([str(runs / "one")], with_bases=False)
    assert trial.name == best.trial_id
    (runs / "a-model").symlink_to(base_models / "small")
    monkeypatch.chdir(tmp_path)
    assert not is_trial_reference(str(runs / "a-model")) and not is_trial_reference(
        "trials/of-the-hub"
    )
    assert is_trial_reference(str(best.path)) and is_trial_reference(
        str(best.path.parent / "absent")
    )


def test_models_of_one_basename_and_trials_that_are_alike_have_their_own_names(
    run: RunFolder, base_models: Path, tmp_path: Path
) -> None:
    for place, model in (("exp1", "small"), ("exp2", "large")):
        shutil.copytree(base_models / model, tmp_path / place / "small")
    folders = [finished(run, model="small", optimizer=name) for name in ("adamw", "sgd")]
    asked = [str(folder.path) for folder in folders]
    asked += [str(tmp_path / place / "small") for place in ("exp1", "exp2")]
    models = asked_models(asked)
    assert [(each.kind, each.label) for each in models] == [
        ("base", "small none"),
        ("LoRA", "small none r8 a16 lr2.0e-04 b8x1"),
        ("LoRA", "small none r8 a16 lr2.0e-04 b8x1 sgd"),
        ("model", "exp1/small none"),
        ("model", "exp2/small none"),
    ]
    assert [each.name for each in models if not each.is_of_a_trial] == [
        "small", "exp1/small", "exp2/small",
    ]  # fmt: skip
