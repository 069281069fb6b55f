"""The training loop: its events, its files, and that it can be interrupted anywhere."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import (
    BUDGET,
    EXECUTION,
    assert_same_curve,
    evaluate_selection,
    make_spec,
    make_trial,
    run,
    shared_base,
)
from trainables.errors import InputError, Interrupted
from trainables.models.base import load_base
from trainables.spec.events import Event
from trainables.spec.trial_spec import Budget
from trainables.training.full_evaluation import score_report
from trainables.training.loop import TrainingFailedError, train
from trainables.training.progress import RECENT_STEPS, Progress, resumed_history
from trainables.training.trial import TrialContext

# All that has a state: dropout, a moving rate, moments, several micro-batches, a second epoch.
STATEFUL: dict[str, Any] = {
    "dropout": 0.2,
    "schedule": "cosine",
    "warmup": 0.3,
    "weight_decay": 0.1,
    "batch_size": 2,
    "gradient_accumulation": 2,
}
LONG = Budget(train_examples=32, eval_examples=3, rungs=(0.25, 1.0))


def test_a_trial_tells_its_rungs_and_its_end(tiny_llama: Path, tmp_path: Path) -> None:
    events = run(make_spec(tiny_llama), tmp_path)
    told = [(event.kind, event.step, event.units, event.fraction) for event in events]
    assert told == [
        ("rung", 1, 4, 0.25),
        ("rung", 2, 8, 0.5),
        ("progress", 3, 12, 0.75),
        ("rung", 4, 16, 1.0),
        ("finished", 4, 16, 1.0),
    ]
    seconds = [event.seconds for event in events]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_rungs_ask_a_subset_and_the_last_the_whole_split(tiny_llama: Path, tmp_path: Path) -> None:
    rungs = [event for event in run(make_spec(tiny_llama), tmp_path) if event.kind == "rung"]
    assert [event.metrics["em_acc_questions"] for event in rungs] == [3, 3, 8]
    expected = {
        "train_loss", "eval_loss", "em_acc", "em_acc_strict", "learning_rate_now",
        "train_peak_memory_bytes", "eval_peak_memory_bytes", "process_peak_memory_bytes",
        "examples_per_second", "tokens_seen",
    }  # fmt: skip
    assert all(expected <= set(event.metrics) for event in rungs)
    assert all(value >= 0 for event in rungs for value in event.metrics.values())


def test_equal_trainings_have_one_loss_at_a_rung_whenever_they_reported(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """The mean since the last event depends on the clock, by which events come."""
    budget = Budget(train_examples=80, eval_examples=2, rungs=(0.1, 0.6, 1.0))
    told = []
    for seconds in (0.0, 1e-3, 3600.0):
        rarely = replace(EXECUTION, progress_seconds=seconds)
        spec = make_spec(tiny_llama, budget=budget, execution=rarely, batch_size=2)
        trial = make_trial(spec, tmp_path / str(seconds))
        if seconds == 1e-3:  # and whether it was interrupted
            running = train(trial)
            next(running)
            running.close()
        list(train(trial))
        summary = trial.folder.summary()
        assert summary is not None
        history = map(Event.from_json, summary["history"])
        told.append([event.metrics for event in history if event.kind == "rung"])
    one, two, three = told
    name = f"train_loss_last_{RECENT_STEPS}_steps"
    for rung in range(3):
        assert one[rung][name] == two[rung][name] == three[rung][name]
    assert one[1]["train_loss"] != three[1]["train_loss"]
    assert three[0][name] == three[0]["train_loss"]  # fewer steps than that
    assert three[1][name] != three[1]["train_loss"]


@pytest.mark.parametrize(
    ("rungs", "told"),
    [
        ((0.5, 1.0), [(2, 8, 0.5), (3, 10, 1.0)]),  # 5 of 10 examples, in steps of 4
        ((0.1, 0.2, 0.4, 1.0), [(1, 4, 0.4), (3, 10, 1.0)]),  # one step may pass several
    ],
)
def test_a_rung_is_judged_at_the_first_step_at_or_after_it(
    rungs: tuple[float, ...], told: list[Any], tiny_llama: Path, tmp_path: Path
) -> None:
    budget = Budget(train_examples=10, eval_examples=2, rungs=rungs)
    events = run(make_spec(tiny_llama, budget=budget), tmp_path)
    assert [(e.step, e.units, e.fraction) for e in events if e.kind == "rung"] == told


def test_a_finished_trial_leaves_its_result_and_no_checkpoint(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama)
    trial = replace(make_trial(spec, tmp_path), provenance={"git_commit": "abc"})
    events = list(train(trial))
    names = {file.name for file in trial.folder.path.iterdir()}
    assert names == {"spec.json", "adapter", "predictions.jsonl", "summary.json"}
    summary = trial.folder.summary()
    assert summary is not None
    assert (summary["trial_id"], summary["role"]) == (spec.trial_id, "trial")
    assert (summary["state"], summary["reason"], summary["attempts"]) == ("finished", "", 1)
    assert (summary["step"], summary["units"], summary["fraction"]) == (4, 16, 1.0)
    assert summary["configuration"] == spec.knobs
    assert summary["metrics"] == events[-1].metrics
    assert [Event.from_json(event) for event in summary["history"]] == events[:-1]
    assert summary["provenance"] == {"git_commit": "abc"}
    assert summary["seconds"]["train"] + summary["seconds"]["eval"] <= summary["seconds"]["total"]
    assert summary["facts"]["train_prompts_cut"] == summary["facts"]["eval_prompts_cut"] == 0
    assert summary["facts"]["executed_micro_batch"] == 4


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_every_file_may_be_read_by_whom_the_umask_lets(
    umask: int, mode: int, method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    """safetensors makes files that only their owner may read, whatever the umask."""
    often = replace(EXECUTION, checkpoint_seconds=0.0)
    spec = make_spec(tiny_llama, execution=often, method=method)
    before = os.umask(umask)
    try:
        trial = make_trial(spec, tmp_path)
        running = train(trial)
        next(running)
        (saved,) = trial.folder.checkpoints_folder.rglob("*.safetensors")
        assert stat.S_IMODE(saved.stat().st_mode) == mode
        list(running)
    finally:
        os.umask(before)
    files = [item for item in trial.folder.path.rglob("*") if item.is_file()]
    assert any(file.suffix == ".safetensors" for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {mode}


def test_an_interrupted_evaluation_has_taken_its_time() -> None:
    progress = Progress()
    with pytest.raises(Interrupted), progress.timed("eval_seconds"):
        time.sleep(0.02)
        raise Interrupted
    assert progress.eval_seconds >= 0.02


def test_predictions_are_of_the_whole_selection_split(tiny_llama: Path, tmp_path: Path) -> None:
    trial = make_trial(make_spec(tiny_llama), tmp_path)
    metrics = list(train(trial))[-1].metrics
    rows = _rows(trial.folder.predictions_file())
    examples = trial.data.split("selection").examples
    assert [row["id"] for row in rows] == [example.id for example in examples]
    assert sum(row["em_acc"] for row in rows) / len(rows) == pytest.approx(metrics["em_acc"])


def test_training_learns(tiny_llama: Path, tmp_path: Path) -> None:
    budget = Budget(train_examples=96, eval_examples=2, rungs=(1.0,))
    spec = make_spec(tiny_llama, budget=budget, generated={"train": 4}, learning_rate=0.02, rank=8)
    losses = [e.metrics["train_loss"] for e in run(spec, tmp_path) if e.kind != "finished"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_trial_that_was_stopped_goes_on_as_if_it_had_not_been(
    stop_after: int, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, budget=LONG, generated={"train": 12}, **STATEFUL)
    whole = run(spec, tmp_path / "whole")
    trial = make_trial(spec, tmp_path / "stopped")
    running = train(trial)
    before = [next(running) for _ in range(stop_after)]
    running.close()
    assert resumed_history(trial.folder) == before
    after = list(train(make_trial(spec, tmp_path / "stopped")))
    assert_same_curve(before + after, whole)
    summary = trial.folder.summary()
    assert summary is not None and summary["attempts"] == 2
    assert len(summary["history"]) == len(whole) - 1


def test_a_trial_that_was_killed_goes_on_from_its_last_checkpoint(
    tiny_llama: Path, tmp_path: Path
) -> None:
    often = replace(EXECUTION, checkpoint_seconds=0.0)
    spec = make_spec(tiny_llama, budget=LONG, execution=often, **STATEFUL)
    whole = run(spec, tmp_path / "whole")
    trial = make_trial(spec, tmp_path / "killed")
    running = train(trial)
    before = [next(running) for _ in range(4)]
    shutil.copytree(tmp_path / "killed", tmp_path / "found")
    running.close()
    found = make_trial(spec, tmp_path / "found")
    history = resumed_history(found.folder)
    assert history == before
    assert_same_curve(history + list(train(found)), whole)


def test_a_trial_killed_before_its_summary_only_has_to_finish(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama)
    trial = make_trial(spec, tmp_path / "killed")
    running = train(trial)
    events = [next(running) for _ in range(4)]
    assert events[-1].fraction == 1.0
    running.close()
    (finished,) = train(make_trial(spec, tmp_path / "killed"))
    assert finished.kind == "finished"
    clock = {"device_seconds"}  # the device is held while it finishes, too
    assert finished.metrics.keys() == events[-1].metrics.keys()
    assert all(
        finished.metrics[n] == events[-1].metrics[n] for n in finished.metrics.keys() - clock
    )
    assert trial.folder.done and trial.folder.predictions_file().exists()


def test_a_trial_closed_after_a_rung_goes_on_from_it(tiny_llama: Path, tmp_path: Path) -> None:
    trial = make_trial(make_spec(tiny_llama), tmp_path)
    running = train(trial)
    rung = next(running)
    running.close()
    assert not trial.folder.done
    assert resumed_history(trial.folder) == [rung]
    assert next(train(trial)).fraction == 0.5


def test_a_loss_that_is_not_finite_ends_the_trial_and_not_the_base(
    tiny_llama: Path, tmp_path: Path
) -> None:
    budget = replace(BUDGET, rungs=(1.0,))
    spec = make_spec(tiny_llama, budget=budget, learning_rate=1e30, optimizer="sgd", warmup=0.0)
    expected = f"Trial {spec.trial_id[:6]} failed at step 2: loss is nan. Last checkpoint: none."
    with pytest.raises(TrainingFailedError) as raised:
        run(spec, tmp_path)
    assert str(raised.value) == expected
    assert not any("lora" in name for name, _ in shared_base(spec).model.named_modules())


def test_the_failure_names_the_checkpoint_that_is_left(tiny_llama: Path, tmp_path: Path) -> None:
    often = replace(EXECUTION, checkpoint_seconds=0.0)
    spec = make_spec(
        tiny_llama,
        budget=replace(BUDGET, rungs=(1.0,)),
        execution=often,
        learning_rate=1e30,
        optimizer="sgd",
        warmup=0.0,
    )
    with pytest.raises(TrainingFailedError, match="Last checkpoint: step 1"):
        run(spec, tmp_path)


def test_the_saved_adapter_is_the_model_that_was_judged(tiny_llama: Path, tmp_path: Path) -> None:
    trial = make_trial(make_spec(tiny_llama, quantization="nf4"), tmp_path)
    judged = list(train(trial))[-1].metrics
    model = trial.method.load(trial.base.model, trial.folder.adapter_folder)
    again = evaluate_selection(model, trial)
    trial.method.detach(model)
    assert again.metrics["eval_loss"] == pytest.approx(judged["eval_loss"], rel=1e-6)
    assert again.predictions == _rows(trial.folder.predictions_file())


def test_the_report_split_is_scored_with_the_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    trial = make_trial(make_spec(tiny_llama), tmp_path)
    list(train(trial))
    score = score_report(trial)
    untrained = make_trial(make_spec(tiny_llama, method="untrained"), tmp_path)
    list(train(untrained))
    other = untrained.folder.report_score()
    assert (score["split"], score["count"]) == ("report", 4)
    assert trial.folder.report_score() == score
    assert other is not None
    assert score["metrics"]["eval_loss"] < other["metrics"]["eval_loss"]
    assert len(_rows(trial.folder.predictions_file("report"))) == 4


def test_a_baseline_is_judged_and_not_trained(tiny_llama: Path, tmp_path: Path) -> None:
    trial = make_trial(make_spec(tiny_llama, method="untrained"), tmp_path)
    events = list(train(trial))
    told = [(event.kind, event.step, event.units, event.fraction) for event in events]
    assert told == [("rung", 0, 0, 1.0), ("finished", 0, 0, 1.0)]
    names = {file.name for file in trial.folder.path.iterdir()}
    rows = {"predictions.jsonl", "report_predictions.jsonl"}
    assert names == {"spec.json", "summary.json", "report.json", *rows}
    summary, score = trial.folder.summary(), trial.folder.report_score()
    assert summary is not None and score is not None
    assert (summary["role"], summary["state"]) == ("baseline", "finished")
    assert summary["metrics"]["em_acc_questions"] == 8
    assert score["count"] == 4


def test_gradient_checkpointing_changes_no_loss(tiny_llama: Path, tmp_path: Path) -> None:
    plain = run(make_spec(tiny_llama, dropout=0.1), tmp_path)
    less = run(make_spec(tiny_llama, dropout=0.1, gradient_checkpointing=True), tmp_path)
    assert_same_curve(less, plain)


def test_the_same_trial_gives_the_same_result_on_a_used_base(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization="nf4", dropout=0.1)
    used = run(spec, tmp_path / "used")
    fresh = run(spec, tmp_path / "fresh", base=load_base(spec, device="cpu"))
    assert_same_curve(used, fresh)


def test_the_seed_decides_the_curve(tiny_llama: Path, tmp_path: Path) -> None:
    one, other = (_losses(run(make_spec(tiny_llama, seed=n), tmp_path)) for n in (1, 2))
    assert one != other


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_another_architecture_trains_and_is_judged(
    quantization: str, tiny_gpt_neox: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_gpt_neox, quantization=quantization, learning_rate=0.02)
    events = run(spec, tmp_path)
    losses = [event.metrics["eval_loss"] for event in events if event.kind == "rung"]
    assert losses[-1] < losses[0]
    adapter = tmp_path / spec.trial_id / "adapter" / "adapter_config.json"
    targets = json.loads(adapter.read_text())["target_modules"]
    assert sum(name.endswith("attention.query_key_value") for name in targets) == 2


def test_a_model_with_a_chat_template_trains(tiny_chat_llama: Path, tmp_path: Path) -> None:
    assert run(make_spec(tiny_chat_llama), tmp_path)[-1].kind == "finished"


def test_prompts_that_were_cut_are_counted(tiny_llama: Path, tmp_path: Path) -> None:
    spec = make_spec(tiny_llama, sequence_length=110)
    run(spec, tmp_path)
    summary = make_trial(spec, tmp_path).folder.summary()
    assert summary is not None
    assert summary["facts"]["train_prompts_cut"] > 0
    assert summary["facts"]["sequence_limit"] == 110


def test_examples_that_are_too_long_are_an_error_or_are_left_out_and_counted(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """Left out of training; in an evaluation each is a question without an answer."""
    spec = make_spec(tiny_llama, sequence_length=46)
    with pytest.raises(InputError, match=r"sequence_length: .* of 24 of the train split"):
        run(spec, tmp_path)
    options = {**spec.task_options, "too_long": "drop"}
    identity = {**spec.task_identity, "too_long": "drop"}
    spec = replace(spec, task_options=options, task_identity=identity)
    trial = make_trial(spec, tmp_path)
    assert list(train(trial))[-1].kind == "finished"
    summary = trial.folder.summary() or {}
    fitting, asked = trial.data.split("train"), trial.data.split("selection")
    dropped = 24 - len(fitting)
    assert summary["facts"]["train_examples_dropped"] == dropped > 0
    unread = {example.example_id for example in asked.too_long}
    assert summary["facts"]["eval_questions_dropped"] == len(unread) > 0
    lines = trial.folder.predictions_file().read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "id" in row]
    assert [row["id"] for row in rows] == [example.id for example in asked.examples]
    assert {row["id"] for row in rows if row["prediction"] == ""} >= unread
    assert not any(row["em_acc"] for row in rows if row["id"] in unread)
    assert summary["metrics"]["em_acc_questions"] == 8 > len(asked.fitting)


def test_real_pages_train_and_are_judged(
    shared_data: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    trial = _finqa_trial(shared_data, tiny_llama, tmp_path)
    events = list(train(trial))
    assert events[-1].kind == "finished"
    assert trial.data.split("train").prompts_cut > 0


def _finqa_trial(shared_data: Path, model: Path, folder: Path) -> TrialContext:
    """Sixteen training and four selection questions of the real files."""
    files = {split: folder / f"{split}.jsonl" for split in ("train", "selection", "report")}
    sources = {"train": "train", "selection": "dev", "report": "dev"}
    for split, file in files.items():
        file.write_text("".join(_lines(shared_data / "finqa", sources[split], split)))
    options = {split: str(file) for split, file in files.items()}
    spec = make_spec(model, prompt="default", sequence_length=480)
    spec = replace(spec, task_options=options, task_identity={"files": "real"})
    return make_trial(spec, folder)


def _lines(folder: Path, source: str, split: str) -> list[str]:
    with gzip.open(folder / f"{source}.jsonl.gz", "rt") as stream:
        records = [json.loads(line) for line in stream]
    full = [record for record in records if record["ctx"] == "full"]
    pages: dict[str, list[Any]] = {}
    for record in full:
        pages.setdefault(record["id"].rsplit("-", 1)[0], []).append(record)
    chosen = list(pages.values())[10:20] if split == "report" else list(pages.values())[:10]
    return [json.dumps(record) + "\n" for page in chosen for record in page][:16]


def _losses(events: Sequence[Event]) -> list[float]:
    return [event.metrics["train_loss"] for event in events]


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
