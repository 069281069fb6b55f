"""Commands on a run of which a colleague may not read some files: a clear line, no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import ask, report, status
from tests.file_modes import modes_obeyed
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, new_spec, outcomes
from trainables.command_line import BAD_INPUT, DONE, FAILED
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

RANK_8, UNDONE = new_spec(rank=8).trial_id, new_spec(rank=16).trial_id
RUN_FILES = ["", "sweep.yaml", "sweep.json", "driver.lock", "trials"]
FILES = [
    *("", "spec.json", "summary.json", "prediction.json", "report.json"),
    *("predictions.jsonl", "report_predictions.jsonl"),
]
PLACES = [
    *RUN_FILES,
    *(f"trials/{RANK_8}/{name}".rstrip("/") for name in FILES),
    *(f"trials/{UNDONE}/{name}".rstrip("/") for name in ("", "spec.json", "progress.json")),
]
WEIGHTS = [f"trials/{RANK_8}/adapter{name}" for name in ("", "/adapter_model.safetensors")]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = new_run(tmp_path / "sweep")
    run.write_state({"sweep_id": "1", "resume_command": "python -m orchestrator.sweep a.yaml"})
    run.write_text(run.lock_file, "{}")
    add_baseline(run, outcomes(5), report_right=outcomes(5))
    predicted: Any = {"prediction": {"train_memory_bytes": 5}, "report_right": outcomes(20)}
    add_trial(run, right=outcomes(40), rank=4, **predicted)
    _train(add_trial(run, right=outcomes(60), rank=8, **predicted))
    undone = run.trial(UNDONE)
    undone.write_spec(new_spec(rank=16), {})
    undone.write_progress({"kind": "progress", "metrics": {}, "state": "running", "updated": 1.0})
    return run


def _train(folder: TrialFolder) -> None:
    def save(place: Path) -> None:
        place.mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (place / name).write_text("{}")

    summary = folder.summary()
    assert summary is not None
    folder.write_adapter(save)
    folder.write_summary(summary)


@pytest.mark.parametrize("mode", [0o000, 0o444])
@pytest.mark.parametrize("place", [*PLACES, *WEIGHTS])
def test_what_may_not_be_read_is_said(
    run: RunFolder, capsys: pytest.CaptureFixture[str], place: str, mode: int
) -> None:
    """A folder of mode 444 may be listed, but nothing in it may be read."""
    closed = run.path / place
    is_readable = mode == 0o444 and closed.is_file()
    usual = closed.stat().st_mode
    closed.chmod(mode)
    commands = (report, ask) if place in WEIGHTS else (report, ask, status)
    try:
        with modes_obeyed():
            for command in commands:
                code = command.main([str(run.path)])
                said = " ".join("".join(capsys.readouterr()).split())
                assert is_readable or (str(closed) in said and "can't be read" in said)
                has_none = place == "trials" and command is ask
                assert code == (BAD_INPUT if not place else FAILED if has_none else DONE)
    finally:
        closed.chmod(usual)


def test_a_trial_whose_summary_may_not_be_read_is_not_called_interrupted(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run.trial(RANK_8).summary_file.chmod(0o000)
    with modes_obeyed():
        assert status.main([str(run.path)]) == DONE
    assert "1 finished, 1 interrupted, 1 unreadable" in capsys.readouterr().out
