"""Models of full fine-tuning take gigabytes each: those of beaten trials go when a sweep ends."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.formatting import format_bytes
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

BEATEN = "beaten: neither the best nor on the Pareto front when the sweep ended"


def discard_dominated_models(run: RunFolder, *, keep: Collection[str]) -> str | None:
    """Removes the models of finished trials but those in `keep`; what it did, in words, if
    anything. Their results, predictions and curves stay; adapters, which are small, do too.
    """
    dominated = [
        folder
        for folder in run.trials()
        if folder.trial_id not in keep and _has_model(folder) and folder.done
    ]
    if not dominated:
        return None
    freed = sum(folder.discard_model(BEATEN) for folder in dominated)
    return f"Removed the models of {len(dominated)} beaten trials ({format_bytes(freed)})."


def _has_model(folder: TrialFolder) -> bool:
    """Here, or in the bucket alone."""
    return folder.model_folder.is_dir() or folder.model_bytes > 0
