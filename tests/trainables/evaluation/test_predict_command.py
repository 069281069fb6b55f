"""`python -m orchestrator.predict` on trained models."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.orchestrator.run_builder import new_run
from tests.tiny_trials import EXECUTION, make_spec
from tests.tiny_trials import run as train
from trainables.storage.trial_folder import TrialFolder

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent


@pytest.mark.slow
def test_base_lora_quantized_and_full_answer_as_their_sweep_has_noted(
    tiny_llama: Path, tmp_path: Path
) -> None:
    run = new_run(tmp_path / "run")
    specs = [
        make_spec(tiny_llama),
        make_spec(tiny_llama, quantization="nf4"),
        make_spec(tiny_llama, method="full", learning_rate=1e-3),
        make_spec(tiny_llama, method="untrained"),
    ]
    for spec in specs:
        train(spec, run.trials_folder)
    places = [str(run.trial(spec.trial_id).path) for spec in specs]
    done = predict_command(places[0], "--compare", *places[1:3], "--sample", "5", "--json")
    assert done.returncode == 0, done.stderr
    question, summary = map(json.loads, done.stdout.splitlines())
    kinds = [(each["kind"], each["label"].split()[1]) for each in question["answers"]]
    assert kinds == [("base", "none"), ("LoRA", "none"), ("base", "nf4"), ("LoRA", "nf4"),
                     ("full", "none")]  # fmt: skip
    noted = {spec.trial_id: rows(run.trial(spec.trial_id))[5] for spec in specs}
    asked = {each["model"]: each for each in question["answers"] if each["kind"] != "base"}
    for spec in specs[:3]:
        mine, theirs = asked[spec.trial_id], noted[spec.trial_id]
        assert mine["prediction"] == theirs["prediction"] == mine["noted_prediction"]
        assert mine["right"] == theirs["em_acc"] and question["id"] == theirs["id"]
    base = question["answers"][0]
    assert base["prediction"] == noted[specs[3].trial_id]["prediction"] == base["noted_prediction"]
    differing = [each["other_than_noted"] for each in summary["summary"]["models"]]
    assert differing == [0, 0, None, 0, 0]  # no sweep has judged the nf4 base
    assert "loading" in done.stderr and "asking full" in done.stderr


def rows(folder: TrialFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in folder.predictions_file().read_text().splitlines()]


def predict_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.predict.__main__", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_a_plain_model_answers_as_the_baseline_of_a_sweep_would(
    base_models: Path, tmp_path: Path
) -> None:
    model = base_models / "small"
    options = ["--space", "search_spaces/quickstart.yaml", "--set", "execution.eval_batch_size=4"]
    sizes = "{kinds: [latest, prior, change, rose], train: 24, selection: 8, report: 4, seed: 5}"
    options += ["--set", f"data.generated={sizes}", "--limit", "3", "--json"]
    done = predict_command(str(model), *options)
    assert done.returncode == 0, done.stderr
    *questions, summary = map(json.loads, done.stdout.splitlines())
    spec = make_spec(model, method="untrained", sequence_length=128)
    spec = replace(spec, execution=replace(EXECUTION, max_new_tokens=4))
    train(spec, tmp_path)
    noted = rows(TrialFolder(tmp_path / spec.trial_id))
    for at, question in enumerate(questions):
        (answer,) = question["answers"]
        assert question["id"] == noted[at]["id"] and answer["kind"] == "model"
        assert answer["prediction"] == noted[at]["prediction"]
    assert summary["summary"]["questions"] == 3
