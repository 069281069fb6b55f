"""Standard streams that take nothing, or not every character, never break the work."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from trainables.standard_streams import shows_everything, standard_streams

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}
TEXT = "a \N{EN DASH} b \N{MIDDLE DOT} é \u65e5 \udcff \U0001f600"
WRITES = f"""
import sys
from pathlib import Path
from trainables.command_line import run_command
def work():
    for number in range(3):
        print({TEXT!a}, number, flush=True)
        print({TEXT!a}, number, file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text("done")
    return 7
sys.exit(run_command(work, needs_output=len(sys.argv) > 2))
"""


def started(place: Path, *more: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITES, str(place / "done"), *more]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, cwd=REPOSITORY, **streams)


def without_reader() -> int:
    """The end of a pipe whose reader has ended."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    return write_end


def lost_terminal() -> int:
    """A terminal that has gone away, as when an ssh connection breaks."""
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


LOSSES = pytest.mark.parametrize(
    ("lost", "reason", "code"),
    [
        (without_reader, "Broken pipe", 141),
        (lost_terminal, "Input/output error", 1),
        (full_disk, "No space left on device", 1),
    ],
)


@LOSSES
def test_work_that_needs_no_output_goes_on_and_says_so_once(
    lost: Any, reason: str, code: int, tmp_path: Path
) -> None:
    process = started(tmp_path, stdout=lost())
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 7 and (tmp_path / "done").exists()
    assert errors.count(f"warning: standard output: {reason}; going on without it.\n") == 1
    assert errors.count("a \N{EN DASH} b") == 3 and "Traceback" not in errors


@LOSSES
def test_work_that_is_its_output_ends_quietly_or_with_the_reason(
    lost: Any, reason: str, code: int, tmp_path: Path
) -> None:
    process = started(tmp_path, "needs output", stdout=lost())
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == code and not (tmp_path / "done").exists()
    assert errors == ("" if code == 141 else f"error: standard output: {reason}\n")


@LOSSES
def test_messages_are_never_needed(lost: Any, reason: str, code: int, tmp_path: Path) -> None:
    process = started(tmp_path, "needs output", stderr=lost())
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 7 and output.count("a \N{EN DASH} b") == 3


def test_streams_that_are_closed_from_the_start_are_no_other_files(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WRITES)
    command = f"exec {sys.executable} {script} {tmp_path}/done >&- 2>&- <&-"
    place = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run(command, shell=True, env=place, check=False).returncode == 7
    assert (tmp_path / "done").read_text() == "done"


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        (ASCII, b"a - b * \\xe9 \\u65e5 \\udcff \\U0001f600"),
        (LATIN, "a - b · é \\u65e5 \\udcff \\U0001f600".encode("latin-1")),
        ({"PYTHONIOENCODING": "utf-8"}, TEXT.replace("\udcff", "\\udcff").encode()),
    ],
    ids=["ascii", "latin-1", "utf-8"],
)
def test_what_can_not_be_encoded_is_shown_by_something_else(
    environment: Mapping[str, str], shown: bytes, tmp_path: Path
) -> None:
    process = started(tmp_path, "needs output", env={**os.environ, **environment})
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 7
    lines = b"".join(shown + b" %d\n" % number for number in range(3))
    assert (output, errors) == (lines, lines)


def test_a_reader_that_is_slow_and_does_not_block_gets_all_of_it() -> None:
    write = "from trainables.standard_streams import *\nwith standard_streams(needs_output=True):"
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    command = [sys.executable, "-c", f"{write} print('x' * 300_000)"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=write_end) as process:
        os.close(write_end)
        time.sleep(0.3)
        with os.fdopen(read_end) as reader:
            assert len(reader.read()) == 300_001
    assert process.returncode == 0


def test_it_gives_the_streams_back_and_leaves_those_of_the_caller_alone() -> None:
    before = sys.stdout
    with standard_streams(needs_output=True):
        assert sys.stdout is before  # pytest's
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", sys.__stdout__)
        with standard_streams(needs_output=True), standard_streams(needs_output=False):
            assert sys.stdout.errors == "shown"
        assert sys.stdout is sys.__stdout__


@pytest.mark.parametrize(
    ("encoding", "everything"), [("utf-8", True), ("utf-16", True), ("latin-1", False)]
)
def test_which_encodings_show_everything(encoding: str, everything: bool) -> None:
    assert shows_everything(io.TextIOWrapper(io.BytesIO(), encoding=encoding)) is everything
