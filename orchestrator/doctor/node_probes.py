"""What the doctor runs on a node: functions that change nothing and return plain values."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator.runs.provenance import code_sha256

PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "deepspeed",
    "tokenizers",
    "safetensors",
    "numpy",
    "mlflow",
    "optuna",
)
_REPORT_SECONDS = 90
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def node_versions() -> dict[str, str]:
    """The versions of Python and of each package ("none" if it is not installed), and the digest
    of the project's code."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return {**found, "the project": code_sha256()}


def node_devices() -> int:
    """The number of NVIDIA devices of the node's operating system, whatever Ray counts."""
    return len([*Path("/dev").glob("nvidia[0-9]*")])


def node_reaches(url: str) -> str:
    """The reason why the node does not reach an HTTP server; empty if the server answers."""
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=10):
            return ""
    except HTTPError as error:
        return f"it answers with {error.code} {error.reason}"
    except (URLError, OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def node_models(names: list[str]) -> dict[str, str]:
    """The digest of each model, a local folder or the hub's; "!" and the reason if not found."""
    from orchestrator.planning.sources import find_model
    from trainables.errors import InputError

    found = {}
    for name in names:
        try:
            found[name] = find_model(name).digest
        except InputError as error:
            found[name] = f"!{error.messages[0]}"
    return found


def node_deepspeed() -> dict[str, Any]:
    """DeepSpeed's version ("" if not installed), which of its ops can be built, missing tools."""
    try:
        installed = version("deepspeed")
    except PackageNotFoundError:
        return {"version": "", "ops": {}, "lacks": []}
    lacks = [tool for tool in ("g++", "ninja") if shutil.which(tool, path=_path()) is None]
    done = subprocess.run(
        [sys.executable, "-m", "deepspeed.env_report", "--hide_errors_and_warnings"],
        capture_output=True,
        text=True,
        timeout=_REPORT_SECONDS,
        check=False,
        env={**os.environ, "PATH": _path(), "NO_COLOR": "1"},
    )
    return {"version": installed, "ops": read_ops(done.stdout), "lacks": lacks}


def read_ops(report: str) -> dict[str, bool]:
    """Whether each op in DeepSpeed's report is built or can be built.

    A line of it reads `cpu_adam ............... [NO] ....... [OKAY]`.
    """
    ops = {}
    for line in _COLOUR.sub("", report).splitlines():
        name, *rest = line.split() or [""]
        if rest and name.replace("_", "").isalnum() and rest[-1] in ("[OKAY]", "[NO]", "[YES]"):
            ops[name] = rest[-1] == "[OKAY]" or "[YES]" in rest
    return ops


def _path() -> str:
    """PATH with the folder of this Python's programs, where ninja may be."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
