"""A model's config.json, for predictions: of its folder, the hub's cache, our table or the hub."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.planning.known_models import popular_config


@functools.lru_cache(maxsize=64)
def model_config(source: str, revision: str = "", *, ask_the_hub: bool = True) -> Any:
    """The content of config.json of a folder, absolute, or of a hub's model at a revision.

    None where it is not to be had. The hub is asked for its few kilobytes only if they are
    neither in its cache nor in `popular_models`.
    """
    if Path(source).is_absolute():
        return _read(Path(source) / "config.json")
    return (
        _from_hub(source, revision, cached=True)
        or popular_config(source)
        or (_from_hub(source, revision, cached=False) if ask_the_hub else None)
    )


def _from_hub(name: str, revision: str, *, cached: bool) -> Mapping[str, Any] | None:
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        file = hf_hub_download(
            name, "config.json", revision=revision or None, local_files_only=cached
        )
    except (HTTPError, HFValidationError, OSError):  # refused, unreachable, not in the cache
        return None
    return _read(Path(file))


def _read(file: Path) -> Mapping[str, Any] | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
