"""What a result must say of the program that made it: its commit, its versions, its command."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("ray", "optuna", "mlflow")


def driver_provenance() -> dict[str, str]:
    """Git commit and dirty state of the project, and the driver's package versions.

    Outside a git checkout the commit is "unknown".
    """
    facts = {f"{package}_version": version(package) for package in _PACKAGES}
    facts["python_version"] = platform.python_version()
    commit = _git("rev-parse", "HEAD")
    facts["git_commit"] = commit or "unknown"
    if commit:
        facts["git_dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return facts


def _git(*arguments: str) -> str:
    """The output of a git command in the project's folder; empty if there is none."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
