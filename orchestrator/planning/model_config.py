"""A model's config.json, for forecasts: from its folder, the hub's cache, POPULAR or the hub."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.planning.known_models import popular_config


@functools.lru_cache(maxsize=64)
def model_config(source: str, revision: str = "", *, ask_the_hub: bool = True) -> Any:
    """The content of config.json in an absolute folder, or of a model of the hub at a revision.

    None if it is not available. The hub is asked only for a model that is neither in its cache nor
    in `known_models`.
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
    except (HTTPError, HFValidationError, OSError):  # refused, unreachable or not cached
        return None
    return _read(Path(file))


def _read(file: Path) -> Mapping[str, Any] | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
