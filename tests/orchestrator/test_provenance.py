"""Specification of provenance: which program made a result."""

from __future__ import annotations

import re
import subprocess

import pytest

from orchestrator.provenance import driver_provenance


def test_it_names_versions_and_commit() -> None:
    facts = driver_provenance()
    assert {"ray_version", "optuna_version", "mlflow_version", "python_version"} <= facts.keys()
    assert re.fullmatch("[0-9a-f]{40}|unknown", facts["git_commit"])
    assert facts.get("git_dirty", "false") in ("true", "false")


@pytest.mark.parametrize(
    "fault", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10), OSError()]
)
def test_without_git_the_commit_is_unknown(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def no_git(*arguments: object, **options: object) -> None:
        raise fault

    monkeypatch.setattr(subprocess, "run", no_git)
    facts = driver_provenance()
    assert facts["git_commit"] == "unknown"
    assert "git_dirty" not in facts
