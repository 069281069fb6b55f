"""A task with metrics of its own goes from the plan to every command; only its row is added.

`Letters` is ranked by a share of questions, `LettersByError` by a number that is to be small. Tests
in this process add the row to TASKS and nothing else; the real sweep is of a task that is installed
as another package is, by an entry point.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import ask, report, score, status
from orchestrator.config.objectives import objectives
from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SweepConfig
from orchestrator.config.writer import to_mapping
from orchestrator.execution.display import SweepDisplay
from orchestrator.planning.dry_run import describe
from orchestrator.planning.planner import Planner
from orchestrator.predict import comparison
from orchestrator.predict.models import asked_models
from orchestrator.predict.questions import task_of
from orchestrator.predict.worker_process import ModelAnswers
from orchestrator.runs.results import read_metrics, read_trials
from orchestrator.runs.trial_result import ranked
from orchestrator.tracking.sync import end_sweep, finish_trial
from orchestrator.tracking.tracker import RunEnd, SweepEnd
from tests import tiny_trials
from tests.contracts.letters_task import LETTERS_OFF, WITHIN_ONE, Letters, LettersByError
from tests.orchestrator import tiny_sweep
from tests.orchestrator.execution.test_display import shown
from tests.tiny_models import make_llama
from trainables.errors import InputError
from trainables.evaluation.answering import Asked, answers
from trainables.simulation.service import answers as estimates
from trainables.spec.metric import MetricSpec
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.run_folder import RunFolder
from trainables.tasks.registry import TASKS

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RANKS = (2, 3)
OF_OTHER_TASKS = ("em_acc", "EmAcc", "em_error")


@dataclass(frozen=True)
class Trained:
    """A run folder with trials of a task that were really trained, and their specs."""

    task: type[Letters]
    run: RunFolder
    config: SweepConfig
    specs: tuple[TrialSpec, ...]

    @property
    def metric(self) -> MetricSpec:
        return self.task.metrics.primary

    def says(self, command: Any, *more: str, capsys: pytest.CaptureFixture[str]) -> str:
        assert command.main([str(self.run.path), *more]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        text = " ".join(printed.out.split())
        assert not [name for name in OF_OTHER_TASKS if name in text]
        return text


def space(model: Path, task: str, **sections: Any) -> dict[str, Any]:
    """A sweep over a quantization and a rank, on a task that needs no data."""
    value = tiny_sweep.mapping(str(model), task=task, data={}, execution={"eval_batch_size": 4})
    value["space"] |= {"rank": list(RANKS), "prompt": "default", "sequence_length": 96}
    value["budget"] = {"train_examples": 16, "eval_examples": 4, "seed": 3}
    return {**value, **sections}


@pytest.fixture(scope="module", params=[Letters, LettersByError], ids=lambda kind: kind.name)
def task(request: pytest.FixtureRequest) -> Iterator[type[Letters]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, request.param.name, lambda: request.param)
        yield request.param


@pytest.fixture(scope="module")
def trained(
    task: type[Letters], tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """Two trials and a baseline of both quantizations, in the order of their planning."""
    config = from_mapping(space(tiny_llama, task.name))
    run = RunFolder(tmp_path_factory.mktemp("runs") / "letters")
    run.write_text(run.sweep_file, yaml.safe_dump(to_mapping(config)))
    planner = Planner(config, device=dict(tiny_sweep.CPU))
    planner.prepare()
    one = {"model": str(tiny_llama), "quantization": "none", "prompt": "default", "alpha": 8}
    asked = {**one, "sequence_length": 96, "batch_size": 4, "learning_rate": 1e-2}
    specs = (
        planner.baseline(asked),
        *(planner.spec({**asked, "rank": rank}) for rank in RANKS),
        planner.spec({**asked, "rank": RANKS[0], "quantization": "nf4"}),
    )
    for spec in specs:
        tiny_trials.run(spec, run.trials_folder)
    return Trained(task, run, config, specs)


def test_the_plan_takes_objective_tokens_and_digests_from_the_task(trained: Trained) -> None:
    config, spec = trained.config, trained.specs[1]
    assert config.objective == trained.metric.name
    assert from_mapping(to_mapping(config)) == config
    assert set(objectives(trained.task.metrics)) >= {"within_one", "letters_off", "eval_loss"}
    assert spec.task == trained.task.name and spec.execution.max_new_tokens == 7
    assert spec.knobs["target"] == trained.task.targets[0]
    assert spec.task_identity["version"] == f"{trained.task.name}-1/rule-3"
    text = describe(Planner(config, device=dict(tiny_sweep.CPU)), trained.run)
    assert f"examples of task {trained.task.name}" in text


def test_several_objectives_are_searched_for(task: type[Letters], tiny_llama: Path) -> None:
    both = ["letters_off", "within_one", "train_peak_memory_bytes"]
    config = from_mapping(space(tiny_llama, task.name, objective=both, scheduler="none"))
    directions = [objectives(task.metrics)[name].direction for name in config.objectives]
    assert directions == ["minimize", "maximize", "minimize"]
    with pytest.raises(InputError, match=r"objective: got 'em_acc'"):
        from_mapping(space(tiny_llama, task.name, objective="em_acc"))
    value = space(tiny_llama, task.name)
    value["space"]["target"] = "program"
    with pytest.raises(InputError, match=r"space.target: got 'program'"):
        from_mapping(value)


def test_a_trial_is_simulated_from_its_tokens(trained: Trained, tiny_llama: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    spec = trained.specs[1]
    request = {"id": 1, "trial": spec.to_json(), "config": config, "device": "cpu"}
    [answer] = estimates([json.dumps(request)], cache=None)
    found = json.loads(answer)["prediction"]
    assert found["knows_lengths"] and found["train_flops"] > 0
    measured = trained.run.trial(spec.trial_id).summary()
    assert measured is not None
    peak = measured["metrics"]["train_peak_memory_bytes"]
    assert found["prediction"]["train_memory_bytes"] == pytest.approx(peak, rel=0.2)


def test_a_trial_measures_the_metrics_of_the_task(trained: Trained) -> None:
    folder = trained.run.trial(trained.specs[1].trial_id)
    metrics = (folder.summary() or {})["metrics"]
    assert metrics[f"{trained.metric.name}_questions"] == 8
    assert {"within_one", "letters_off", "unread_rate", "eval_loss"} <= metrics.keys()
    rows = [json.loads(line) for line in folder.predictions_file().read_text().splitlines()]
    assert len(rows) == 8 and {"is_near", "distance", "prediction", "gold"} <= rows[0].keys()
    assert sum(row["distance"] for row in rows) / 8 == pytest.approx(metrics["letters_off"])


def test_the_report_is_of_the_metrics_of_the_task(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    title = trained.metric.title
    text = trained.says(report, capsys=capsys)
    assert f"Pareto front: {title} against training peak memory" in text
    best = ranked(read_trials(trained.run), trained.metric)[0]
    near = f"{best.metrics['within_one']:.0%}"
    off = f"{best.metrics['letters_off']:.2f} letters"
    assert f"within one letter selection {near}" in text and f"distance selection {off}" in text
    test = "exact McNemar" if trained.metric == WITHIN_ONE else "paired t"
    assert f"{title} at the full budget" in text and f"{test} of 3 pairs, Bonferroni" in text
    assert ("within one letter (95%)" in text) == (trained.metric == WITHIN_ONE)
    assert "What quantization changed" in text and "1 pair of trained configurations" in text
    assert trained.run.pareto_file.read_bytes().startswith(b"\x89PNG")


def test_the_best_is_the_one_with_the_least_error(trained: Trained) -> None:
    results = [item for item in read_trials(trained.run) if item.is_trial]
    best = ranked(results, LETTERS_OFF)[0]
    assert best.metrics["letters_off"] == min(item.metrics["letters_off"] for item in results)
    assert read_metrics(trained.run).ranking == trained.metric


def test_columns_begin_with_the_metrics_of_the_task(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.says(report, capsys=capsys)
    (header, *rows) = csv.reader(io.StringIO(trained.run.results_file.read_text()))
    own = [metric.name for metric in trained.task.metrics.specs]
    place = header.index(own[0])
    count = f"{own[0]}_questions"
    assert header[place : place + 4] == [*own, count, "eval_loss"]
    assert {f"report_{name}" for name in own} <= set(header) and len(rows) == 4
    assert not set(OF_OTHER_TASKS) & set(header)


def test_the_status_and_the_live_lines_name_the_metric(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = trained.metric
    best = ranked(read_trials(trained.run), metric)[0]
    form = "{:.0%}" if metric == WITHIN_ONE else "{:.2f} letters"
    value = f"{metric.title} {form.format(best.metrics[metric.name])}"
    assert f"{best.label}: {value}" in trained.says(status, capsys=capsys)
    file = io.StringIO()
    display = SweepDisplay(metric, file)
    display.start(total=2)
    worse = {metric.name: metric.gain(metric.gain(best.metrics[metric.name]) - 1)}
    display.trial_ended("a", best.label, "finished", "", best.metrics)
    display.trial_ended("b", "another", "finished", "", worse)
    assert f", {value}, memory " in file.getvalue().splitlines()[0]
    assert f"best {value} ({best.label})" in shown(display)


def test_ask_finds_the_best_that_reaches_a_value_of_the_metric(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = trained.metric
    best = ranked(read_trials(trained.run), metric)[0]
    reach = str(best.metrics[metric.name])
    text = trained.says(ask, "--gpu-memory", "12GiB", "--reach", reach, capsys=capsys)
    assert best.trial_id in text and ("highest" if metric == WITHIN_ONE else "lowest") in text
    found = json.loads(_printed(trained, capsys, "--json", "--reach", reach))
    bound = "min_within_one" if metric == WITHIN_ONE else "max_letters_off"
    aim = "within_one_error" if metric == WITHIN_ONE else "letters_off"
    assert found["asked"] == {"minimize": aim, "gpu_memory_bytes": None, bound: float(reach)}
    assert found["best"][metric.name] == best.metrics[metric.name]
    unreachable = "1" if metric == WITHIN_ONE else "0"
    assert ask.main([str(trained.run.path), "--reach", unreachable]) == 1
    words = " ".join(capsys.readouterr().out.split())
    assert f"of the {metric.title} asked for" in words and "lacks" in words
    assert ask.main([str(trained.run.path), "--min-em-acc", "0.5"]) == 2
    assert f"this sweep is ranked by {metric.name}; use --reach" in capsys.readouterr().err


def _printed(trained: Trained, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert ask.main([str(trained.run.path), *options]) == 0
    return capsys.readouterr().out


def test_predict_shows_answers_with_the_verdict_and_both_metrics(trained: Trained) -> None:
    models = asked_models([str(trained.run.path)])
    asked = [Asked(model.spec, model.trained, model.label, is_of_a_sweep=True) for model in models]
    given = dict(answers(asked, split="selection", questions=[0, 2], notify=lambda text: None))
    kind = task_of(models[0].spec)
    examples = kind.load("selection")
    found = comparison.Comparison(
        kind,
        "selection",
        [(place, examples[place]) for place in (0, 2)],
        [
            comparison.Answered(
                model, ModelAnswers(given[at].prompts, given[at].cut, given[at].rows), {}
            )
            for at, model in enumerate(models)
        ],
    )
    text = io.StringIO()
    comparison.report(found).print(text, width=200)
    words = " ".join(text.getvalue().split())
    assert "how often is a in this word" in words and "letters" in words
    assert f"gold: {kind.gold_text(examples[0])}" in words and "of 2" in words
    *_, last = comparison.json_lines(found)
    assert {"within_one", "letters_off"} <= last["summary"]["models"][0]["metrics"].keys()


def test_score_measures_predictions_from_elsewhere(
    task: type[Letters], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = [{"id": "x", "word": "banana"}, {"id": "y", "word": "anna"}]
    given = [{"id": "x", "prediction": "I count.\nAnswer: 3"}, {"id": "y", "prediction": "7"}]
    files = [tmp_path / "gold.jsonl", tmp_path / "predictions.jsonl"]
    for file, records in zip(files, (gold, given), strict=True):
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ["--task", task.name, str(files[1]), "--gold", str(files[0])]
    assert score.main([*options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["within_one"], found["letters_off"], found["count"]) == (0.5, 2.5, 2)
    assert ("half_width_95" in found) == (task.metrics.primary == WITHIN_ONE)
    assert score.main(options) == 0
    text = capsys.readouterr().out
    assert f"{task.name}: 2 questions, {task.metrics.primary.title} rule version 3" in text
    assert "2.50 letters" in text and "50.00%" in text


class Told:
    """A tracker that keeps what it is told of trials and of the sweep."""

    def __init__(self) -> None:
        self.ends: list[RunEnd] = []
        self.sweep: SweepEnd | None = None

    def finish(self, end: RunEnd) -> None:
        self.ends.append(end)

    def close(self, end: SweepEnd) -> None:
        self.sweep = end


def test_a_tracker_is_told_of_the_metrics_and_which_answers_are_right(trained: Trained) -> None:
    told: Any = Told()
    end_sweep(trained.run, told, state="finished")
    assert {"best_within_one", "best_letters_off", "best_eval_loss"} <= told.sweep.metrics.keys()
    finish_trial(told, trained.run.trial(trained.specs[1].trial_id), label="a")
    (row, *_) = told.ends[0].tables["predictions.json"]
    assert row["correct"] == row["is_near"] and "within_one" in told.ends[0].metrics


def test_without_the_task_its_run_is_read_with_a_warning(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by somebody who has not installed its package."""
    monkeypatch.delitem(TASKS, trained.task.name)
    for command in (report, status):
        assert command.main([str(trained.run.path)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert f"task: no task named '{trained.task.name}'" in told
        assert "Install the package that has it. Trials are ranked and compared by eval" in told
    assert ask.main([str(trained.run.path), "--reach", "1"]) == 2
    assert "Install the package that has it." in capsys.readouterr().err
    told_later: Any = Told()
    end_sweep(trained.run, told_later, state="finished")
    assert "best_eval_loss" in told_later.sweep.metrics
    finish_trial(told_later, trained.run.trial(trained.specs[1].trial_id), label="a")
    assert "correct" not in told_later.ends[0].tables["predictions.json"][0]
    with pytest.raises(InputError, match="no task named"):
        task_of(asked_models([str(trained.run.path)])[0].spec)
    with pytest.raises(InputError, match="task: got"):
        from_mapping(to_mapping(trained.config))


@dataclass(frozen=True)
class Installed:
    """A folder with a sweep of a task that other packages' metadata lie beside."""

    folder: Path
    run: Path
    done: subprocess.CompletedProcess[str]

    def says(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _program(self.folder, *arguments)


def _program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (folder / "packages", REPOSITORY)))
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**tiny_sweep.environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _install(packages: Path) -> None:
    """What pip leaves of a package that has a task: its metadata, on the path of modules."""
    metadata = packages / "letters_tasks-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: letters-tasks\nVersion: 1.0\n")
    kinds = (Letters, LettersByError)
    points = [f"{kind.name} = {kind.__module__}:{kind.__qualname__}" for kind in kinds]
    text = "\n".join(["[sweep_orchestrator.tasks]", *points, ""])
    (metadata / "entry_points.txt").write_text(text)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A real sweep of the installed task whose metric is to be minimized, by the real driver."""
    folder = tmp_path_factory.mktemp("elsewhere")
    _install(folder / "packages")
    value = space(make_llama(folder / "model"), LettersByError.name)
    file = tiny_sweep.write_space(folder / "letters.yaml", value)
    planned = _program(folder, "orchestrator.sweep", str(file), "--dry-run")
    assert planned.returncode == 0 and "task letters_by_error" in planned.stdout, planned.stderr
    assert "FLOPs  [rank" in planned.stdout, planned.stdout  # what the simulator predicts
    command = ["orchestrator.sweep", str(file), "--storage", "runs", "--address", "local"]
    done = _program(folder, *command, "--trials", "3")
    return Installed(folder, folder / "runs" / "letters", done)


@pytest.mark.slow
def test_a_sweep_of_an_installed_task_trains_and_reports(installed: Installed) -> None:
    assert installed.done.returncode == 0, installed.done.stdout + installed.done.stderr
    assert "Traceback" not in installed.done.stderr
    text = installed.done.stdout
    assert "distance" in text and "Pareto front: distance against train FLOPs" in text
    assert "The best guess without a model (most common count) has a distance of" in text
    assert not [name for name in OF_OTHER_TASKS if name in text]
    summaries = tiny_sweep.summaries(installed.run)
    states = {summary["state"] for summary in summaries.values()}
    assert "finished" in states and states <= {"finished", "stopped"}
    report_scores = list(installed.run.glob("trials/*/report.json"))
    assert report_scores and "letters_off" in json.loads(report_scores[0].read_text())["metrics"]


@pytest.mark.slow
def test_its_metrics_are_in_mlflow(installed: Installed) -> None:
    with sqlite3.connect(installed.folder / "runs" / "mlflow.db") as database:
        rows = database.execute("select distinct key from metrics").fetchall()
    names = {str(name) for (name,) in rows}
    assert {"letters_off", "within_one", "report_letters_off", "best_letters_off"} <= names
    assert not {name for name in names if "em_acc" in name}


@pytest.mark.slow
def test_the_commands_read_it_where_the_task_is_installed(installed: Installed) -> None:
    run = str(installed.run)
    asked = installed.says("orchestrator.ask", run, "--reach", "9", "--json")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["asked"]["minimize"] == "letters_off"
    assert json.loads(asked.stdout)["best"]["train_flops"] > 0
    answered = installed.says("orchestrator.predict", run, "--limit", "2", "--json")
    assert answered.returncode == 0, answered.stderr
    *questions, last = map(json.loads, answered.stdout.splitlines())
    models: list[Mapping[str, Any]] = last["summary"]["models"]
    assert len(questions) == 2 and [each["other_than_noted"] for each in models] == [0, 0]
    again = installed.says(
        "orchestrator.sweep", "letters.yaml", "--storage", "runs", "--trials", "3"
    )
    assert again.returncode == 0 and "Starting Ray" not in again.stdout, again.stderr
    assert "distance" in again.stdout
