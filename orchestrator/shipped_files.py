"""Files by the names in a sweep's file, those that ship with the project among them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent  # a checkout, or site-packages
_FOLDERS = ("base_models", "search_spaces")  # site-packages holds other projects' folders too


def existing_path(text: str) -> Path | None:
    """The absolute path of `text` if it exists, else of the shipped file of that name, or None.

    Shipped files have their names in the repository: `base_models/small`,
    `search_spaces/quickstart.yaml`. A text that can be no path, as one too long, does not exist.
    """
    given = Path(os.path.expanduser(text))  # noqa: PTH111  # pathlib's raises for an unknown user
    if os.path.exists(given):  # noqa: PTH110  # pathlib's raises for a name that is too long
        return given.resolve()
    shipped = ROOT / given
    is_shipped = given.parts[:1] and given.parts[0] in _FOLDERS and ".." not in given.parts
    return shipped.resolve() if is_shipped and shipped.exists() else None


def resolve_path(text: str) -> str:
    """The absolute path of an existing file; any other text, as a prompt's name, unchanged."""
    is_path = "/" in text or Path(text).suffix != ""
    found = existing_path(text) if is_path else None
    return str(found) if found else text


def resolve_data_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """The task's options with absolute paths of the files in them, also of those in a section. The
    name of a data set of the hub is none."""
    return {n: value if n == "hub" else _resolved(value) for n, value in options.items()}


def _resolved(value: Any) -> Any:
    if isinstance(value, Mapping):
        return resolve_data_paths(value)
    return resolve_path(value) if isinstance(value, str) else value
