"""predict shows the answers of models, or reports everything that prevents it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.predict import __main__
from orchestrator.predict.__main__ import main
from orchestrator.predict.models import asked_models
from orchestrator.predict.worker_process import AnsweringFailedError, ask
from tests.orchestrator.predict.test_models import finished
from tests.orchestrator.predict.test_questions import GENERATED
from tests.orchestrator.run_builder import add_baseline, new_run, new_spec
from trainables.errors import InputError
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder


def test_all_faults_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run(tmp_path / "run")
    absent = str(run.trials_folder / "0123456789ab")
    options = ["--split", "dev", "--sample", "1", "--limit", "0", "--quantization", "int4"]
    assert main([absent, *options, "--space", "x.yaml", "--task", "fincqa"]) == 2
    error = capsys.readouterr().err
    for part in ("no such trial", "--split", "--limit: got 0", "--limit: given", "int4", "--space",
                 "fincqa"):  # fmt: skip
        assert part in error
    assert all(line.startswith("error: ") for line in error.splitlines() if line)


def test_a_task_that_is_not_the_trials_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(new_run(tmp_path / "run"))
    assert main([str(folder.path), "--task", "tatqa"]) == 2
    assert "--task: got tatqa, and what is asked was made for finqa" in capsys.readouterr().err


def test_a_sample_that_is_not_there_is_told_before_any_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = judged(new_run(tmp_path / "run"))
    assert main([str(folder.path), "--sample", "8", "--split", "selection"]) == 2
    assert "selection split has 8 questions, 0 to 7" in capsys.readouterr().err


def judged(run: RunFolder) -> TrialFolder:
    """A baseline of a task that can be made, said to have been judged."""
    task_options = {"generated": GENERATED}
    spec = replace(new_spec(role="baseline", method="untrained"), task_options=task_options)
    folder = run.trial(spec.trial_id)
    folder.write_spec(spec, {})
    folder.write_summary({"state": "finished"})
    return folder


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for part in ("--compare", "predictions.jsonl", "exit codes", "--space SPACE.yaml", "--limit N"):
        assert part in text


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('print(\'{"say": "so"}\'); print(\'{"failed": "CUDA out of memory"}\')', "out of mem"),
        ("import sys; sys.exit('no such thing')", "ended with 1. Its last words: no such thing"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL. Was there memory for it?"),
        ("pass", "ended with 0"),
    ],
)
def test_a_process_that_fails_is_told_with_its_reason(
    code: str, expected: str, tmp_path: Path
) -> None:
    add_baseline(new_run(tmp_path / "run"), [1])
    models = asked_models([str(next((tmp_path / "run/trials").iterdir()))])
    said: list[str] = []
    with pytest.raises(AnsweringFailedError, match=expected.replace("?", r"\?")):
        ask(models, split="selection", questions=[0], notify=said.append, command=_python(code))
    assert said in ([], ["so"])


def test_what_the_process_finds_wrong_is_the_users_to_mend(tmp_path: Path) -> None:
    folder = add_baseline(new_run(tmp_path / "run"), [1])
    models = asked_models([str(folder.path)])
    told = json.dumps({"errors": ["the data have changed", "and the prompt"]})
    with pytest.raises(InputError, match="the data have changed\nand the prompt"):
        ask(
            models, split="report", questions=[0], notify=print, command=_python(f"print({told!r})")
        )


def _python(code: str) -> Sequence[str]:
    return [sys.executable, "-c", code]


def test_a_failure_and_ctrl_c_have_exit_codes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = judged(new_run(tmp_path / "run"))
    for error, code in ((AnsweringFailedError("out of memory"), 1), (KeyboardInterrupt(), 130)):

        def fail(*given: object, error: BaseException = error, **options: object) -> None:
            raise error

        monkeypatch.setattr(__main__, "ask", fail)
        assert main([str(folder.path)]) == code


def test_the_process_is_told_with_how_many_questions_at_once_a_sweep_has_asked(
    tmp_path: Path,
) -> None:
    folder = judged(new_run(tmp_path / "run"))
    folder.write_summary({"state": "finished", "facts": {"executed_eval_batch": 3}})
    models = asked_models([str(folder.path)])
    with pytest.raises(AnsweringFailedError, match="it is 3"):
        ask(models, split="selection", questions=[0], notify=print, command=_python(_ECHO))


_ECHO = """
import json
told = json.loads(input())["models"][0]["eval_batch"]
print(json.dumps({"failed": f"it is {told}"}))
"""
