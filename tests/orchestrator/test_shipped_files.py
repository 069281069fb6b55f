"""Shipped files are found by their names in the repository, from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import shipped_files
from orchestrator.cli import space_file
from orchestrator.planning.sources import is_hub_id
from orchestrator.shipped_files import ROOT, existing_path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder that is empty at first."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", ["base_models/small", "search_spaces/quickstart.yaml"])
def test_a_shipped_file_is_found_from_any_folder(name: str) -> None:
    assert existing_path(name) == ROOT / name


def test_a_file_of_the_working_directory_comes_first(elsewhere: Path) -> None:
    own = elsewhere / "search_spaces" / "quickstart.yaml"
    own.parent.mkdir()
    own.write_text("task: finqa\n")
    assert existing_path("search_spaces/quickstart.yaml") == own
    assert space_file("search_spaces/quickstart.yaml") == Path("search_spaces/quickstart.yaml")


def test_a_space_that_is_nowhere_stays_as_it_was_given() -> None:
    assert space_file("search_spaces/quickstrat.yaml") == Path("search_spaces/quickstrat.yaml")


def test_what_lies_beside_the_packages_but_is_not_shipped_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    (packages / "gpt2").mkdir(parents=True)
    (packages / "base_models").mkdir()
    monkeypatch.setattr(shipped_files, "ROOT", packages)
    assert existing_path("gpt2") is None
    assert existing_path("base_models/../gpt2") is None
    assert is_hub_id("gpt2")
