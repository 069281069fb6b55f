"""Provenance: which code made a result."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from orchestrator.runs import provenance
from orchestrator.runs.provenance import code_sha256, driver_provenance


def test_it_names_versions_and_commit() -> None:
    facts = driver_provenance()
    assert {"ray_version", "optuna_version", "mlflow_version", "python_version"} <= facts.keys()
    assert re.fullmatch("[0-9a-f]{40}|unknown", facts["git_commit"])
    assert re.fullmatch("[0-9a-f]{12}", facts["code_sha256"])
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


def test_a_repository_around_an_installed_package_is_not_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages"
    (installed / "orchestrator").mkdir(parents=True)
    (installed / "orchestrator" / "__init__.py").touch()
    (tmp_path / ".gitignore").write_text("site-packages/\n")
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "ROOT", installed)
    assert driver_provenance()["git_commit"] == "unknown"


def test_the_code_s_digest_tells_of_a_file_s_name_and_content(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    one, other = tmp_path / "trainables" / "one.py", tmp_path / "trainables" / "other.py"
    one.parent.mkdir()
    one.write_text("x = 1")
    digests = [code_sha256()]
    one.write_text("x = 2")
    digests.append(code_sha256())
    one.rename(other)
    digests.append(code_sha256())
    assert len(set(digests)) == 3
