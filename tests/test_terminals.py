"""Every command: its output may go nowhere or to a terminal that shows ASCII only."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.conftest import REPOSITORY
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, outcomes
from tests.trainables.test_standard_streams import ASCII, LATIN, full_disk, without_reader

SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
MODULES = sorted(entry.partition(":")[0].removesuffix(".__main__") for entry in SCRIPTS.values())
GOES_ON = {"orchestrator.sweep", "orchestrator.track"}  # their work is not their output


def command(
    *words: str, stdout: int = subprocess.PIPE, variables: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    if stdout != subprocess.PIPE:
        os.close(stdout)
    return done.returncode, (done.stdout or b"").decode("latin-1"), done.stderr.decode("latin-1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run folder whose model has letters that ASCII and Latin-1 lack."""
    made = new_run(tmp_path_factory.mktemp("runs") / "quickstart")
    for rank in (2, 4):
        add_trial(made, right=outcomes(40 + rank), model="modèle-\u03c9", rank=rank)
    add_baseline(made, outcomes(10), model="modèle-\u03c9")
    return str(made.path)


@pytest.mark.parametrize("module", MODULES)
def test_a_command_whose_reader_has_ended_or_whose_disk_is_full(module: str) -> None:
    expected = (0, 0) if module in GOES_ON else (141, 1)
    code, _, errors = command(module, "--help", stdout=without_reader())
    assert code == expected[0] and "Traceback" not in errors and "Exception" not in errors
    code, _, errors = command(module, "--help", stdout=full_disk())
    assert code == expected[1] and "standard output: No space left" in errors
    assert "Traceback" not in errors and "Exception" not in errors


@pytest.mark.parametrize("module", ["report", "status", "ask"])
@pytest.mark.parametrize("encoding", [ASCII, LATIN], ids=["ascii", "latin-1"])
def test_a_run_is_shown_in_any_encoding(module: str, encoding: dict[str, str], run: str) -> None:
    code, output, errors = command(f"orchestrator.{module}", run, variables=encoding)
    assert code == 0, errors
    assert errors == ""
    assert "\\u03c9" in output or module == "status"
    assert output.isascii() or encoding is LATIN


def test_a_report_that_is_read_in_part_is_written_whole(run: str) -> None:
    report = Path(run) / "report.md"
    report.unlink(missing_ok=True)
    assert command("orchestrator.report", run, stdout=without_reader()) == (141, "", "")
    assert "\u03c9" in report.read_text(encoding="utf-8")


def test_a_dry_run_ends_with_its_reader() -> None:
    words = ("orchestrator.sweep", "--dry-run")
    assert command(*words, stdout=without_reader()) == (141, "", "")
    assert command(*words, "--no-predict", variables=ASCII)[0] == 0


def test_every_command_is_here() -> None:
    for module in MODULES:
        assert importlib.util.find_spec(module) is not None
    assert len(MODULES) == 10
