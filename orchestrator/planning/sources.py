"""Where models and data come from: hub ids, local folders and files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.shipped_files import existing_path
from trainables.models.hub import resolve_revision
from trainables.models.model_folder import check_model_folder, model_digest

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class ModelSource:
    """Where a model is loaded from and what identifies its content."""

    location: str  # an absolute folder, or a hub id
    digest: str
    revision: str = ""


def find_model(name: str, *, allow_bin: bool = False) -> ModelSource:
    """A local folder where there is one by that name, else a model of the hub."""
    if is_hub_id(name):
        revision = resolve_revision(name, "main")
        return ModelSource(name, f"{name}@{revision}", revision)
    folder = existing_path(name) or Path(name).expanduser()
    check_model_folder(folder, allow_bin=allow_bin)
    return ModelSource(str(folder), model_digest(folder, allow_bin=allow_bin))


def is_hub_id(name: str) -> bool:
    """Whether a model is the hub's, `owner/name` or `name`: looks like it, and no folder is it."""
    return _HUB_ID.fullmatch(name) is not None and existing_path(name) is None


def resolve_path(text: str) -> str:
    """An existing file's absolute path; anything else as it is (a named prompt, say)."""
    is_path = "/" in text or Path(text).suffix != ""
    found = existing_path(text) if is_path else None
    return str(found) if found else text


def resolve_data_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """The task's options with the files in them as absolute paths."""
    return {
        name: resolve_path(value) if isinstance(value, str) else value
        for name, value in options.items()
    }
