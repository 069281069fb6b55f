"""Checkpoints of a trial: safetensors and JSON, complete or absent.

    checkpoints/step-00000040/{tensors.safetensors, state.json}

`state.json` has the sha256 of every other file and a checksum for its trial and step, so that an
incomplete, altered or swapped checkpoint is recognized, and the previous one is used. Under ZeRO
the tensors are in DeepSpeed's own files (`trainables.training.deepspeed_engine`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainables.storage.atomic_files import (
    Guard,
    digest,
    give_usual_mode,
    sync,
    temporary_path,
    unguarded,
)
from trainables.storage.errors import storage_errors
from trainables.storage.sealed_json import DamagedError, verified, with_checksum

if TYPE_CHECKING:
    from trainables.storage.mirror import Mirror

KEPT = 2
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """All that a trial needs to resume as if it had not been interrupted."""

    step: int
    state: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


def save(
    folder: Path,
    checkpoint: Checkpoint,
    *,
    guard: Guard = unguarded,
    mirror: Mirror | None = None,
) -> Path:
    """Writes a checkpoint atomically; it is durable once this returns. Keeps the last KEPT ones.

    Checkpoints of later steps are deleted: they belong to an attempt that could not be resumed. A
    `mirror` is updated in the same way. Raises StorageError, or what `guard` raises (see
    run_folder.py), and then leaves no incomplete checkpoint.
    """
    place = place_of(folder, checkpoint.step)
    temporary = temporary_path(place)
    with storage_errors(place, SafetensorError):
        try:
            temporary.mkdir(parents=True)
            digests = _write_tensors(temporary, checkpoint.tensors)
            state = checkpoint.state
            commit(temporary, place, state=state, digests=digests, guard=guard, mirror=mirror)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return place


def commit(
    temporary: Path,
    place: Path,
    *,
    state: Mapping[str, Any],
    digests: Mapping[str, str | None],
    guard: Guard,
    mirror: Mirror | None = None,
) -> None:
    """Moves the folder `temporary` to `place`, with a manifest of `state` and `digests`.

    `digests` are those of all files in it, which must be on the disk. Deletes later checkpoints and
    all but the last KEPT.
    """
    folder = place.parent
    later = [other for other in places(folder) if other.name > place.name]
    step = int(place.name.removeprefix(_PREFIX))
    whole = {"step": step, "files": dict(digests), "state": state}
    (temporary / _STATE).write_text(json.dumps(with_checksum(whole, place=_seal(place))))
    sync(temporary / _STATE)
    sync(temporary)
    guard()
    shutil.rmtree(place, ignore_errors=True)
    temporary.replace(place)
    sync(folder)
    for other in later:
        shutil.rmtree(other, ignore_errors=True)
    old = places(folder)[KEPT:]
    for other in old:
        shutil.rmtree(other, ignore_errors=True)
    if mirror is not None:
        mirror.publish_folder(place, last=_STATE)
        if later or old:
            mirror.retract(*later, *old)


def place_of(folder: Path, step: int) -> Path:
    return folder / f"{_PREFIX}{step:08d}"


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint, its tensors on the CPU, or None."""
    for place in places(folder):
        state = _read_state(place)
        if state is not None:
            tensors = _read_tensors(place)
            if tensors is not None:
                return Checkpoint(step=state["step"], state=state["state"], tensors=tensors)
    return None


def load_latest_state(folder: Path) -> Mapping[str, Any] | None:
    """The state that `load_latest` would load; tensors are checked but not loaded."""
    states = (_read_state(place) for place in places(folder))
    return next((state["state"] for state in states if state is not None), None)


def places(folder: Path) -> list[Path]:
    """The folders of checkpoints, damaged ones included, the newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def manifest(place: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint: step, files (digests by name) and state.

    None if it is damaged, or if the folder does not hold exactly the files that it names. The
    content of the files is not read.
    """
    try:
        found = verified((place / _STATE).read_bytes(), place=_seal(place))
    except (OSError, DamagedError):
        return None
    return found if set(found["files"]) == files_in(place) else None


def files_in(place: Path) -> set[str]:
    """The paths, relative to `place`, of all files below it except the manifest."""
    below = (item for item in place.rglob("*") if item.is_symlink() or not item.is_dir())
    return {str(item.relative_to(place)) for item in below} - {_STATE}


def _write_tensors(place: Path, named: Mapping[str, torch.Tensor]) -> dict[str, str | None]:
    tensors = {name: t.detach().cpu().contiguous() for name, t in named.items()}
    save_file(_without_shared_memory(tensors), place / _TENSORS)
    give_usual_mode(place / _TENSORS)
    sync(place / _TENSORS)
    return {_TENSORS: digest(place / _TENSORS)}


def _seal(place: Path) -> str:
    """The place of a manifest's checksum: trial and step."""
    return f"{place.parent.parent.name}/{place.name}"


def _without_shared_memory(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, copied where they share memory, which safetensors refuses."""
    seen: set[int] = set()
    return {name: _unshared(tensor, seen) for name, tensor in tensors.items()}


def _unshared(tensor: torch.Tensor, seen: set[int]) -> torch.Tensor:
    address = tensor.untyped_storage().data_ptr()
    if address in seen:
        return tensor.clone()
    seen.add(address)
    return tensor


def _read_state(place: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint, or None if it or a file is damaged."""
    state = manifest(place)
    if state is None:
        return None
    try:
        whole = all(digest(place / name) == noted for name, noted in state["files"].items())
    except OSError:
        return None
    return state if whole else None


def _read_tensors(place: Path) -> dict[str, torch.Tensor] | None:
    try:
        tensors: dict[str, torch.Tensor] = load_file(place / _TENSORS)
    except (OSError, SafetensorError):
        return None
    return tensors


Tensors = dict[str, torch.Tensor]


def seed_worker(seed: int, *, rank: int) -> None:
    """Gives each worker random numbers of its own; those of the first stay as they are."""
    if rank > 0:
        torch.manual_seed(seed * 1_000_003 + rank)


def rng_states(device: torch.device) -> Tensors:
    """The states of torch's random generators that training on `device` uses."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_states(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Restores what `rng_states` returned; ignores the state of another kind of device."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
