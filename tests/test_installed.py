"""The package as a user installs it: a wheel in its own folder, used from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from orchestrator.runs.provenance import code_sha256
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

SOURCES = ("base_models", "benchmarks", "orchestrator", "search_spaces", "tests", "trainables")
FILES = ("pyproject.toml", "README.md", "LICENSE")
COMMANDS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves its work in the folder that it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(
            REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in FILES:
        shutil.copy(REPOSITORY / name, folder / name)
    build = (*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", ".")
    subprocess.run(build, cwd=folder, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    install = (*PIP, "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    subprocess.run(install, check=True)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return tmp_path


def run(
    command: list[str], *, installed: Path, elsewhere: Path
) -> subprocess.CompletedProcess[str]:
    """Runs a command in `elsewhere` with the installed packages before all others."""
    return subprocess.run(
        command,
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_wheel_holds_base_models_and_spaces_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = [*(REPOSITORY / "search_spaces").iterdir(), *(REPOSITORY / "base_models").glob("*/*")]
    expected = {str(file.relative_to(REPOSITORY)) for file in shipped if file.suffix != ".pyc"}
    assert expected and expected <= names
    assert not {name.partition("/")[0] for name in names} & {"tests", "benchmarks"}


def test_what_runs_is_what_was_installed(installed: Path, elsewhere: Path) -> None:
    code = (
        "import orchestrator, trainables.errors; from orchestrator.runs import provenance as p;"
        "print(orchestrator.__file__, trainables.errors.__file__, p.code_sha256(),"
        "p.driver_provenance()['git_commit'])"
    )
    done = run([sys.executable, "-c", code], installed=installed, elsewhere=elsewhere)
    driver, worker, digest, commit = done.stdout.split()
    assert Path(driver).is_relative_to(installed) and Path(worker).is_relative_to(installed)
    assert (digest, commit) == (code_sha256(), "unknown")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_console_command_too(
    name: str, installed: Path, elsewhere: Path
) -> None:
    module = COMMANDS[name].partition(":")[0].removesuffix(".__main__")
    console, python = str(installed / "bin" / name), [sys.executable, "-m", module]
    for command, usage in (([console], name), (python, f"python -m {module}")):
        done = run([*command, "--help"], installed=installed, elsewhere=elsewhere)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: {usage} [-h]")


def test_every_command_of_the_driver_has_a_console_command() -> None:
    driver = {file.stem for file in (REPOSITORY / "orchestrator").glob("*.py")}
    packages = {file.parent.name for file in (REPOSITORY / "orchestrator").glob("*/__main__.py")}
    modules = {entry.partition(":")[0].split(".")[1] for entry in COMMANDS.values()}
    with_main = {
        name
        for name in driver
        if "__main__" in (REPOSITORY / "orchestrator" / f"{name}.py").read_text()
    }
    assert with_main | packages <= modules


def test_the_quickstart_is_planned_from_an_empty_folder(installed: Path, elsewhere: Path) -> None:
    console = str(installed / "bin" / "sweep")
    done = run([console, "--dry-run"], installed=installed, elsewhere=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert "20 trials" in done.stdout and "warning" not in done.stdout
    assert "MiB" in done.stdout, "trials are simulated"
    assert list(elsewhere.iterdir()) == []


def test_a_plain_model_is_looked_up_among_the_shipped_ones(
    installed: Path, elsewhere: Path
) -> None:
    options = ["base_models/small", "--space", "search_spaces/quickstart.yaml", "--limit", "1"]
    console = str(installed / "bin" / "sweep-predict")
    done = run([console, *options, "--json"], installed=installed, elsewhere=elsewhere)
    assert done.returncode == 0, done.stderr
    assert '"label": "small none' in done.stdout
