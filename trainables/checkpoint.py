"""Checkpoints of a trial: safetensors and JSON, never a pickle; whole or not there.

    checkpoints/step-00000040/{tensors.safetensors, state.json}

`state.json` carries the sha256 of the tensors' file and is sealed for its trial and step, so a
torn, altered or swapped checkpoint is seen as one and the one before it is taken.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainables.run_folder import Guard, digest, half_written, sync, unguarded
from trainables.sealed import DamagedError, sealed, unsealed
from trainables.storage import storage_errors

KEPT = 2
_TENSORS, _STATE = "tensors.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a trial needs to go on as if it had never stopped."""

    step: int
    state: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


def save(folder: Path, checkpoint: Checkpoint, *, guard: Guard = unguarded) -> Path:
    """Writes beside and moves into place, durable once it returns; keeps the last KEPT.

    Those of later steps go: they are of a training that could not be gone on with. Raises
    StorageError and then leaves nothing half written, or what `guard` raises (see run_folder.py).
    """
    place = folder / f"step-{checkpoint.step:08d}"
    beside = half_written(place)
    later = [other for other in _places(folder) if other.name > place.name]
    with storage_errors(place, SafetensorError):
        try:
            beside.mkdir(parents=True)
            _write(beside, checkpoint, seal=_seal(place))
            sync(beside)
            guard()
            shutil.rmtree(place, ignore_errors=True)
            beside.replace(place)
            sync(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    for other in later:
        shutil.rmtree(other, ignore_errors=True)
    for old in _places(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that reads back as it was written, on the CPU; None without one."""
    for place in _places(folder):
        state = _read_state(place)
        if state is not None:
            tensors = _read_tensors(place)
            if tensors is not None:
                return Checkpoint(step=state["step"], state=state["state"], tensors=tensors)
    return None


def load_latest_state(folder: Path) -> Mapping[str, Any] | None:
    """The state of what `load_latest` would load; its tensors are checked and not loaded."""
    states = (_read_state(place) for place in _places(folder))
    return next((state["state"] for state in states if state is not None), None)


def _write(place: Path, checkpoint: Checkpoint, *, seal: str) -> None:
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    save_file(_apart(tensors), place / _TENSORS)
    sync(place / _TENSORS)
    state = {
        "step": checkpoint.step,
        "files": {_TENSORS: digest(place / _TENSORS)},
        "state": checkpoint.state,
    }
    (place / _STATE).write_text(json.dumps(sealed(state, place=seal)))
    sync(place / _STATE)


def _seal(place: Path) -> str:
    """Trial and step: the folder of a trial's checkpoints lies in the trial's own."""
    return f"{place.parent.parent.name}/{place.name}"


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """safetensors refuses tensors that share memory."""
    seen: set[int] = set()
    return {name: _once(tensor, seen) for name, tensor in tensors.items()}


def _once(tensor: torch.Tensor, seen: set[int]) -> torch.Tensor:
    address = tensor.untyped_storage().data_ptr()
    if address in seen:
        return tensor.clone()
    seen.add(address)
    return tensor


def _places(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _read_state(place: Path) -> dict[str, Any] | None:
    """None where the state or the tensors are not as they were written."""
    try:
        state = unsealed((place / _STATE).read_bytes(), place=_seal(place))
        whole = state["files"][_TENSORS] == digest(place / _TENSORS)
    except (OSError, DamagedError):
        return None
    return state if whole else None


def _read_tensors(place: Path) -> dict[str, torch.Tensor] | None:
    try:
        tensors: dict[str, torch.Tensor] = load_file(place / _TENSORS)
    except (OSError, SafetensorError):
        return None
    return tensors
