"""What a result must say of the program that made it: its commit, its versions, its command."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("ray", "optuna", "mlflow")
_CODE = ("orchestrator", "trainables")


def driver_provenance() -> dict[str, str]:
    """Git commit and dirty state of the project, a digest of its code, and package versions.

    Outside a git checkout, as on a cluster's head, the commit is "unknown": the digest tells then.
    """
    facts = {f"{package}_version": version(package) for package in _PACKAGES}
    facts["python_version"] = platform.python_version()
    facts["code_sha256"] = code_sha256()
    commit = _git("rev-parse", "HEAD")
    facts["git_commit"] = commit or "unknown"
    if commit:
        facts["git_dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return facts


def code_sha256() -> str:
    """The first 12 digits of the digest of the project's Python files, by name and content."""
    root = Path(__file__).resolve().parent.parent.parent
    digest = hashlib.sha256()
    for folder in _CODE:
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _git(*arguments: str) -> str:
    """The output of a git command in the project's folder; empty if there is none."""
    folder = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
