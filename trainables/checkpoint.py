"""Checkpoints of a trial: safetensors and JSON, never a pickle; whole or not there.

    checkpoints/step-00000040/{tensors.safetensors, state.json}

`state.json` carries the sha256 of the tensors' file, so a torn checkpoint is seen as one and the
one before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

KEPT = 2
_TENSORS, _STATE = "tensors.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a trial needs to go on as if it had never stopped."""

    step: int
    state: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes beside and moves into place, durable once it returns; keeps the last KEPT."""
    place = folder / f"step-{checkpoint.step:08d}"
    beside = folder / f".{place.name}.{os.getpid()}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    _write(beside, checkpoint)
    _sync(beside)
    shutil.rmtree(place, ignore_errors=True)
    beside.replace(place)
    _sync(folder)
    for old in _places(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that reads back as it was written, on the CPU; None without one."""
    for place in _places(folder):
        state = _read_state(place)
        if state is not None:
            tensors = _read_tensors(place, state["files"])
            if tensors is not None:
                return Checkpoint(step=state["step"], state=state["state"], tensors=tensors)
    return None


def load_latest_state(folder: Path) -> Mapping[str, Any] | None:
    """As `load_latest`, the state alone: no tensor is read."""
    states = (_read_state(place) for place in _places(folder))
    return next((state["state"] for state in states if state is not None), None)


def _write(place: Path, checkpoint: Checkpoint) -> None:
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    save_file(_apart(tensors), place / _TENSORS)
    _sync(place / _TENSORS)
    state = {
        "step": checkpoint.step,
        "files": {_TENSORS: _sha256(place / _TENSORS)},
        "state": checkpoint.state,
    }
    (place / _STATE).write_text(json.dumps(state))
    _sync(place / _STATE)


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
    try:
        state: dict[str, Any] = json.loads((place / _STATE).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return state


def _read_tensors(place: Path, files: Mapping[str, str]) -> dict[str, torch.Tensor] | None:
    try:
        if files[_TENSORS] != _sha256(place / _TENSORS):
            return None
        tensors: dict[str, torch.Tensor] = load_file(place / _TENSORS)
    except (OSError, SafetensorError):
        return None
    return tensors


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
