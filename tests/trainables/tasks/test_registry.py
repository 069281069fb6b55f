"""Which tasks there are: those that ship, and those of packages that somebody has installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.letters_task import Letters
from trainables.errors import InputError
from trainables.tasks import registry
from trainables.tasks.finqa.task import FinQA
from trainables.tasks.registry import TASKS, find_task, is_task, make_task, task_names


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path of modules, whose packages are found."""
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._installed.cache_clear()
    yield tmp_path
    registry._installed.cache_clear()


def install(folder: Path, **points: str) -> None:
    metadata = folder / "others_tasks-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: others-tasks\nVersion: 2.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    text = "\n".join([f"[{registry.GROUP}]", *lines, ""])
    (metadata / "entry_points.txt").write_text(text)


def test_a_task_of_an_installed_package_is_found_by_its_name(packages: Path) -> None:
    assert not is_task("letters")
    registry._installed.cache_clear()
    install(packages, letters="tests.contracts.letters_task:Letters")
    assert task_names() == [*TASKS, "letters"] and is_task("letters")
    assert find_task("letters") is Letters
    assert make_task("letters", {}).version == "letters-1/rule-3"


def test_a_shipped_task_is_not_replaced(packages: Path) -> None:
    install(packages, finqa="tests.contracts.letters_task:Letters")
    assert find_task("finqa") is FinQA and task_names() == list(TASKS)


@pytest.mark.parametrize("value", ["no_such_module:Task", "tests.contracts.letters_task:Lettres"])
def test_a_package_that_can_not_be_loaded_is_named(packages: Path, value: str) -> None:
    install(packages, letters=value)
    with pytest.raises(InputError, match=f"task: 'letters' of others-tasks.*{value}"):
        find_task("letters")


def test_nothing_is_imported_before_a_sweep_names_it(packages: Path) -> None:
    (packages / "others_module.py").write_text("raise SystemExit('imported')")
    install(packages, letters="others_module:Task")
    assert is_task("letters") and find_task("finqa") is FinQA
    assert "others_module" not in sys.modules


@pytest.mark.parametrize("name", ["os", "tests.contracts.letters_task:Letters", "fniqa"])
def test_a_name_that_nobody_has_installed_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no task named"):
        make_task(name, {})
