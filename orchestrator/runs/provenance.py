"""Provenance of a result: the commit and the versions of the program that produced it."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import version

from orchestrator.shipped_files import ROOT

_PACKAGES = ("ray", "optuna", "mlflow")
_CODE = ("orchestrator", "trainables")


def driver_provenance() -> dict[str, str]:
    """Git commit and dirty state of the project, a digest of its code, and package versions.

    The commit is "unknown" if no git repository tracks the code, as on a cluster's head or in an
    installed package; `code_sha256` identifies the code then.
    """
    facts = {f"{package}_version": version(package) for package in _PACKAGES}
    facts["python_version"] = platform.python_version()
    facts["code_sha256"] = code_sha256()
    commit = _git("rev-parse", "HEAD") if _is_tracked() else ""
    facts["git_commit"] = commit or "unknown"
    if commit:
        facts["git_dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return facts


def code_sha256() -> str:
    """The first 12 digits of the digest of the project's Python files, by name and content."""
    digest = hashlib.sha256()
    for folder in _CODE:
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(ROOT)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _is_tracked() -> bool:
    """False for a package installed below another project's repository."""
    return bool(_git("ls-files", *_CODE))


def _git(*arguments: str) -> str:
    """The output of a git command in the project's folder; empty if it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
