"""A sweep, its report, `ask` and `predict`, as commands, over rows that the project does not have.

Every process of the sweep, Ray's among them, finds `with_new_rows/sitecustomize.py` on PYTHONPATH
and has the rows of `new_rows.py` before it runs anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama

pytestmark = pytest.mark.slow

NEW_ROWS = Path(__file__).resolve().parent / "with_new_rows"
METHODS = [
    {"norms": {"learning_rate": 5.0e-2}},
    {"lora": {"rank": 2, "alpha": 4, "adapted_layers": [1, 2], "learning_rate": 1.0e-3}},
]


@dataclass(frozen=True)
class Story:
    """A storage folder, and what the sweep's command printed."""

    storage: Path
    done: subprocess.CompletedProcess[str]

    @property
    def run(self) -> Path:
        return self.storage / "new_rows"

    def trials(self, method: str) -> dict[str, dict[str, Any]]:
        """Summaries of a method by trial id."""
        found = tiny_sweep.summaries(self.run).items()
        return {n: each for n, each in found if each["configuration"]["method"] == method}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("new_rows")
    value = tiny_sweep.mapping(str(make_llama(folder / "model")))
    for name in ("rank", "alpha", "learning_rate"):
        del value["space"][name]
    value["space"] |= {"method": METHODS, "quantization": "none"}
    value["search"] = {"algorithm": "grid", "trials": 3}
    value["scheduler"] = "none"
    value["execution"] |= {"checkpoint_minutes": 0.002}
    space = tiny_sweep.write_space(folder / "new_rows.yaml", value)
    command = tiny_sweep.command(space, folder / "runs", predicts=True)
    return Story(folder / "runs", _runs(*command[2:]))


def _runs(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(NEW_ROWS), str(tiny_sweep.REPOSITORY)])
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tiny_sweep.REPOSITORY,
        env={**tiny_sweep.environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_sweep_ends_with_all_its_trials(story: Story) -> None:
    assert story.done.returncode == 0, story.done.stderr + story.done.stdout
    assert len(story.trials("norms")) == 1 and len(story.trials("lora")) == 2
    assert len(story.trials("untrained")) == 1
    states = {summary["state"] for summary in tiny_sweep.summaries(story.run).values()}
    assert states == {"finished"}


def test_each_trial_was_forecast_and_saved_what_its_row_says(story: Story) -> None:
    (norms,) = story.trials("norms")
    assert (story.run / "trials" / norms / "adapter" / "norms.safetensors").is_file()
    trained = {}
    for trial_id, summary in story.trials("lora").items():
        folder = story.run / "trials" / trial_id
        assert (folder / "adapter" / "adapter_model.safetensors").is_file()
        forecast = json.loads((folder / "prediction.json").read_text())
        trained[summary["configuration"]["adapted_layers"]] = (
            summary["facts"]["trainable_parameters"],
            forecast["train_memory_bytes"],
        )
    assert 2 * trained[1][0] == trained[2][0]
    assert trained[1][1] < trained[2][1]


def test_the_report_and_the_label_name_them(story: Story) -> None:
    done = _runs("orchestrator.report", str(story.run))
    assert done.returncode == 0, done.stderr
    text = (story.run / "report.md").read_text()
    methods = text.split("## Methods\n")[1].split("\n## ", maxsplit=1)[0]
    assert "| norms | 1 of 1 |" in methods and "| lora | 2 of 2 |" in methods
    assert " l1" in text and " l2" in text


def test_ask_says_how_to_load_the_best(story: Story) -> None:
    done = _runs("orchestrator.ask", str(story.run))
    assert done.returncode == 0, done.stderr
    assert "load_file(" in done.stdout or "PeftModel.from_pretrained(" in done.stdout


def test_predict_answers_as_the_sweep_did(story: Story) -> None:
    (norms,) = story.trials("norms")
    folder = story.run / "trials" / norms
    done = _runs("orchestrator.predict", str(folder), "--sample", "0", "--json")
    assert done.returncode == 0, done.stderr
    question = json.loads(done.stdout.splitlines()[0])
    noted = json.loads((folder / "predictions.jsonl").read_text().splitlines()[0])
    assert [each["kind"] for each in question["answers"]] == ["base", "norms"]
    assert question["answers"][1]["prediction"] == noted["prediction"]
