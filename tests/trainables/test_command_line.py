"""What commands share: exit codes, messages and the name in the usage."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from trainables.command_line import BAD_INPUT, DONE, FAILED, INTERRUPTED, new_parser, run_command
from trainables.errors import InputError
from trainables.storage.errors import StorageError


class MeterError(RuntimeError):
    """A failure that one command knows."""


def ended_by(error: BaseException, **options: object) -> int:
    def work() -> int:
        raise error

    return run_command(work, next_step=lambda: "Do this.", **options)  # type: ignore[arg-type]


def test_work_that_ends_gives_its_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert [run_command(lambda: DONE), run_command(lambda: FAILED)] == [0, 1]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError(["one.", "two."]), BAD_INPUT, "error: one.\nerror: two.\n"),
        (StorageError("disk: full."), BAD_INPUT, "error: disk: full. Do this.\n"),
        (MeterError("no meter."), FAILED, "error: no meter.\nStart it.\n"),
        (KeyboardInterrupt(), INTERRUPTED, "\nInterrupted. Do this.\n"),
    ],
)
def test_an_error_that_a_user_can_cause_has_a_code_and_a_message(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended_by(error, failures={MeterError: "Start it."}) == code
    assert capsys.readouterr().err == said


def test_a_message_may_stand_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended_by(InputError("one."), prefix="") == BAD_INPUT
    assert ended_by(MeterError("no meter."), prefix="", failures={MeterError: ""}) == FAILED
    assert capsys.readouterr().err == "one.\nno meter.\n"


SIGNALLED = """
import os, signal, sys, time
from trainables.command_line import run_command
ignored = getattr(signal, sys.argv[2])
signal.signal(ignored, signal.SIG_IGN)
def work():
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return 7
code = run_command(work)
assert signal.getsignal(ignored) is signal.SIG_IGN
assert {signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)} - {signal.SIG_IGN} == {
    signal.SIG_DFL}
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("sent", "ignored", "code"),
    [
        ("SIGTERM", "SIGINT", INTERRUPTED),
        ("SIGHUP", "SIGINT", INTERRUPTED),
        ("SIGINT", "SIGINT", 7),
        ("SIGHUP", "SIGHUP", 7),
    ],
)
def test_signals_interrupt_but_for_those_that_were_ignored(
    sent: str, ignored: str, code: int
) -> None:
    command = ["env", "--default-signal=INT,HUP,TERM", sys.executable, "-c", SIGNALLED]
    done = subprocess.run(
        [*command, sent, ignored], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stderr == ("\nInterrupted.\n" if code == INTERRUPTED else "")


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        ended_by(ZeroDivisionError(), failures={MeterError: ""})


@pytest.mark.parametrize(
    ("started", "module", "name"),
    [
        ("/bin/sweep", "orchestrator.sweep", "sweep"),
        ("/home/orchestrator/sweep.py", "orchestrator.sweep", "python -m orchestrator.sweep"),
        ("/bin/sweep-predict", "orchestrator.predict", "sweep-predict"),
        ("/home/predict/__main__.py", "orchestrator.predict", "python -m orchestrator.predict"),
        ("/bin/sweep-download", "trainables.tasks.download", "sweep-download"),
    ],
)
def test_the_usage_names_the_command_that_was_typed(
    started: str, module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started, "--help"])
    assert new_parser(module, description="").format_usage().startswith(f"usage: {name} [-h]")
