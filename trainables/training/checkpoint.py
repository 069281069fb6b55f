"""Checkpoints of a trial: safetensors and JSON; whole or not there.

    checkpoints/step-00000040/{tensors.safetensors, state.json}

`state.json` carries the sha256 of every other file and is sealed for its trial and step, so a
torn, altered or swapped checkpoint is seen as one and the one before it is taken. Only what ZeRO
splits over workers lies there as DeepSpeed writes it (`trainables.training.deepspeed_engine`).
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

from trainables.storage.atomic_files import Guard, digest, sync, temporary_path, unguarded
from trainables.storage.errors import storage_errors
from trainables.storage.sealed_json import DamagedError, verified, with_checksum

if TYPE_CHECKING:
    from trainables.storage.mirror import Mirror

KEPT = 2
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """What a trial needs to go on as if it had never stopped."""

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
    """Writes beside and moves into place, durable once it returns; keeps the last KEPT.

    Those of later steps go: they are of a training that could not be gone on with. Where the
    trial's folder has a `mirror`, all of this is so there too. Raises StorageError and then leaves
    nothing half written, or what `guard` raises (see run_folder.py).
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
    """Makes the folder `temporary` the checkpoint at `place`; `digests`: of all files that it
    holds,
    which are on the disk already. Other checkpoints than the last KEPT, and later ones, go."""
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
    """The newest checkpoint that reads back as it was written, on the CPU; None without one."""
    for place in places(folder):
        state = _read_state(place)
        if state is not None:
            tensors = _read_tensors(place)
            if tensors is not None:
                return Checkpoint(step=state["step"], state=state["state"], tensors=tensors)
    return None


def load_latest_state(folder: Path) -> Mapping[str, Any] | None:
    """The state of what `load_latest` would load; its tensors are checked and not loaded."""
    states = (_read_state(place) for place in places(folder))
    return next((state["state"] for state in states if state is not None), None)


def places(folder: Path) -> list[Path]:
    """Where checkpoints lie, the newest first, sound or not."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def manifest(place: Path) -> dict[str, Any] | None:
    """What was sealed at `place`: step, files (digests by name) and state.

    None where it is not as it was written, or where the files that lie there are not just those
    that it names. Their content is not read.
    """
    try:
        sealed_there = verified((place / _STATE).read_bytes(), place=_seal(place))
    except (OSError, DamagedError):
        return None
    return sealed_there if set(sealed_there["files"]) == files_in(place) else None


def files_in(place: Path) -> set[str]:
    """Names, relative to `place`, of all that lies below it but the seal itself."""
    below = (item for item in place.rglob("*") if item.is_symlink() or not item.is_dir())
    return {str(item.relative_to(place)) for item in below} - {_STATE}


def _write_tensors(place: Path, given: Mapping[str, torch.Tensor]) -> dict[str, str | None]:
    tensors = {name: t.detach().cpu().contiguous() for name, t in given.items()}
    save_file(_apart(tensors), place / _TENSORS)
    sync(place / _TENSORS)
    return {_TENSORS: digest(place / _TENSORS)}


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


def _read_state(place: Path) -> dict[str, Any] | None:
    """None where the state or a file is not as it was written."""
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


def draw_apart(seed: int, *, rank: int) -> None:
    """Workers that began alike draw differently from now on; the first goes on as it was."""
    if rank > 0:
        torch.manual_seed(seed * 1_000_003 + rank)


def rng_states(device: torch.device) -> Tensors:
    """The states of torch's generators that training on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_states(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Sets what `rng_states` returned; a state of another kind of device is left aside."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
