"""The process that loads models and answers: `python -m trainables.evaluation.answering`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from orchestrator.predict.models import ModelUnderTest
from orchestrator.shipped_files import ROOT
from trainables.errors import InputError

_COMMAND = (sys.executable, "-m", "trainables.evaluation.answering")


class AnsweringFailedError(RuntimeError):
    """The process failed, although the user's options are valid."""


@dataclass(frozen=True)
class ModelAnswers:
    """The prompts that one model read, whether each was cut, and one row per question.

    A row is that of a trial's predictions.jsonl.
    """

    prompts: Sequence[str]
    cut: Sequence[bool]
    rows: Sequence[Mapping[str, Any]]


def ask(
    models: Sequence[ModelUnderTest],
    *,
    split: str,
    questions: Sequence[int],
    notify: Callable[[str], None],
    command: Sequence[str] = _COMMAND,
) -> list[ModelAnswers]:
    """The answers of every model, in the order of `models`; `notify` receives the progress.

    Raises InputError for faults that the process finds in the input, and AnsweringFailedError.
    """
    request = {
        "models": [_request(each, split) for each in models],
        "split": split,
        "questions": list(questions),
    }
    found: dict[int, ModelAnswers] = {}
    with tempfile.TemporaryFile("w+") as errors, _process(command, errors) as process:
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            message = json.loads(line)
            _raise_fault(message)
            if "say" in message:
                notify(message["say"])
            else:
                answers = ModelAnswers(message["prompts"], message["cut"], message["rows"])
                found[message["model"]] = answers
        if process.wait() != 0 or len(found) < len(models):
            raise AnsweringFailedError(_failure(process.returncode, errors))
    return [found[at] for at in range(len(models))]


@contextlib.contextmanager
def _process(command: Sequence[str], errors: IO[str]) -> Any:
    process = subprocess.Popen(
        list(command),
        cwd=ROOT,
        env=dict(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process only, which ends the other below
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def _request(model: ModelUnderTest, split: str) -> dict[str, Any]:
    trained = model.trained
    return {
        "spec": model.spec.to_json(),
        "trained": None if trained is None else str(trained),
        "label": f"{model.kind} {model.label}",
        "threads": model.threads,
        "is_of_a_sweep": model.folder is not None,
        "eval_batch": model.eval_batch(split),
    }


def _raise_fault(message: Mapping[str, Any]) -> None:
    if "errors" in message:
        raise InputError(message["errors"])
    if "failed" in message:
        raise AnsweringFailedError(message["failed"])


def _failure(code: int, errors: IO[str]) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    hint = " Was there memory for it?" if code == -signal.SIGKILL else ""
    return f"the process that asks {how}.{hint} Its last words: {lines[-1] if lines else 'none'}"
