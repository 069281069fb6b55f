"""Deletes the models of full fine-tuning that are dominated when a sweep ends."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.formatting import format_bytes
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

DOMINATED = "dominated: neither the best nor on the Pareto front when the sweep ended"


def discard_dominated_models(run: RunFolder, *, keep: Collection[str]) -> str | None:
    """Deletes the models, gigabytes each, of all finished trials that are not in `keep`.

    Results, predictions, curves and adapters, which are small, stay. Returns a message for the
    user, or None if there was nothing to delete.
    """
    dominated = [
        folder
        for folder in run.trials()
        if folder.trial_id not in keep and _has_model(folder) and folder.done
    ]
    if not dominated:
        return None
    freed = sum(folder.discard_model(DOMINATED) for folder in dominated)
    return f"Removed the models of {len(dominated)} beaten trials ({format_bytes(freed)})."


def _has_model(folder: TrialFolder) -> bool:
    """Whether it has a model, on this disk or in the bucket only."""
    return folder.model_folder.is_dir() or folder.model_bytes > 0
