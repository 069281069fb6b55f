"""Sources of models: hub ids and local folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from orchestrator.shipped_files import existing_path
from trainables.models.hub import resolve_revision
from trainables.models.model_folder import has_weights, model_digest

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class ModelSource:
    """Where a model is loaded from, and the digest of its content."""

    location: str  # an absolute folder, or a hub id
    digest: str
    revision: str = ""
    has_weights: bool = True


def find_model(name: str, *, allow_bin: bool = False, needs_weights: bool = True) -> ModelSource:
    """The local folder of that name if there is one, else a model of the hub.

    A plan needs no weights: config.json and a tokenizer are enough for it.
    """
    if is_hub_id(name):
        revision = resolve_revision(name, "main")
        return ModelSource(name, f"{name}@{revision}", revision)
    folder = existing_path(name) or Path(name)
    digest = model_digest(folder, allow_bin=allow_bin, needs_weights=needs_weights)
    return ModelSource(str(folder), digest, has_weights=has_weights(folder))


def is_hub_id(name: str) -> bool:
    """Whether a name is a hub id, `owner/name` or `name`, and not that of a local folder."""
    return _HUB_ID.fullmatch(name) is not None and existing_path(name) is None
