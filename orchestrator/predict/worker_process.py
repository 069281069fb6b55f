"""The process that loads models and answers: `python -m trainables.evaluation.answering`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from orchestrator.predict.models import ModelUnderTest
from orchestrator.shipped_files import ROOT
from trainables.errors import InputError
from trainables.resources.flops import ForwardBackward, Generation, work_from_json

_COMMAND = (sys.executable, "-m", "trainables.evaluation.answering")


class AnsweringFailedError(RuntimeError):
    """The process failed, although the user's options are valid."""


@dataclass(frozen=True)
class ModelAnswers:
    """The prompts that one model read, whether each was cut, and one row per question.

    A row is that of a trial's predictions.jsonl. `seconds` is the time that answering took, without
    loading, and `work` the batches that were computed.
    """

    prompts: Sequence[str]
    cut: Sequence[bool]
    rows: Sequence[Mapping[str, Any]]
    seconds: float = 0.0
    work: Sequence[ForwardBackward | Generation] = ()


def ask(
    models: Sequence[ModelUnderTest],
    *,
    split: str,
    questions: Sequence[int],
    notify: Callable[[str], None],
    command: Sequence[str] = _COMMAND,
) -> list[ModelAnswers]:
    """The answers of every model, in the order of `models`; as `answers_of`."""
    found = dict(
        answers_of(models, split=split, questions=questions, notify=notify, command=command)
    )
    return [found[at] for at in range(len(models))]


def answers_of(
    models: Sequence[ModelUnderTest],
    *,
    split: str,
    questions: Sequence[int],
    notify: Callable[[str], None],
    as_a_sweep: bool = True,
    command: Sequence[str] = _COMMAND,
) -> Iterator[tuple[int, ModelAnswers]]:
    """Yields the place of each model with its answers, once it has answered.

    `notify` receives the progress. `as_a_sweep`: a trial is asked in the batches of its evaluation;
    else the questions are asked by themselves. Raises InputError for faults that the process finds
    in the input, and AnsweringFailedError.
    """
    request = {
        "models": [_request(each, split, as_a_sweep=as_a_sweep) for each in models],
        "split": split,
        "questions": list(questions),
    }
    left = set(range(len(models)))
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
                left.discard(message["model"])
                yield message.pop("model"), _answers(message)
        if process.wait() != 0 or left:
            raise AnsweringFailedError(_failure(process.returncode, errors))


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


def _answers(message: Mapping[str, Any]) -> ModelAnswers:
    work = tuple(work_from_json(each) for each in message["work"])
    return ModelAnswers(**{**message, "work": work})


def _request(model: ModelUnderTest, split: str, *, as_a_sweep: bool) -> dict[str, Any]:
    trained = model.trained
    return {
        "spec": model.spec.to_json(),
        "trained": None if trained is None else str(trained),
        "label": f"{model.kind} {model.label}",
        "threads": model.threads,
        "is_of_a_sweep": as_a_sweep and model.folder is not None,
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
