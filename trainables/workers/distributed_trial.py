"""Ranks: one trial trained by several processes together, which torch.distributed has joined.

Every rank runs the training loop on its share of each batch; all are judged on the same questions.
Rank 0 leads: its clock counts and it writes the trial's folder, but for the shards of checkpoints.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainables.spec.events import Event
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.run_folder import trial_at
from trainables.storage.trial_folder import TrialFolder, prediction_lines

_ONE_DISK = "the working copy (several nodes need --storage in a folder that they share)"


def train_on_ranks(
    folder: str | Path,
    *,
    provenance: Mapping[str, Any],
    heartbeat: Callable[[], None] = lambda: None,
    sample: Callable[[], Mapping[str, float]] = dict,
    device_shared: bool = False,
) -> Generator[Event, str | None, None]:
    """`train` of the trial in `folder`, run by all ranks of the default process group together.

    Every rank yields the same events in the same order (but for `seconds` and `system`), each
    after all ranks have written what belongs to it. Closing it, or throwing into it at an event,
    on all ranks means what it means for `train`; a heartbeat that raises Interrupted on one rank
    interrupts all. `folder` must be the same storage for all ranks; where it is of a bucket, they
    must be on one machine.

    Raises DisagreementError if the ranks have not got the same trial, model, data or packages, and
    what `train` raises; a rank that dies in between leaves the others waiting, so whoever started
    them must end them.
    """
    began = time.perf_counter()
    device = _device()
    process_group = _joined(device)
    place = _own_folder(trial_at(str(folder)), process_group)
    spec = place.spec()
    trial = _trial(spec, place, device=device, process_group=process_group)
    trial = replace(
        trial,
        provenance={**provenance, **_device_facts()},
        sample=sample,
        heartbeat=_together(heartbeat, process_group),
        device_shared=device_shared,
        load_seconds=time.perf_counter() - began,
    )
    from trainables.training.loop import train

    yield from train(trial)


class FollowerFolder(TrialFolder):
    """The trial's folder as ranks behind the first have it: the leader writes, they read."""

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """The leader's."""

    def write_predictions(self, rows: Iterable[Mapping[str, Any]], split: str = "selection") -> str:
        return hashlib.sha256(prediction_lines(rows)).hexdigest()

    def discard_checkpoints(self) -> None:
        """The leader does."""


def _device() -> Any:
    """This rank's; DeepSpeed must be told that there is no GPU before it is imported."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _device_facts() -> dict[str, str]:
    """Of this rank's device, as a host says it of its own."""
    from trainables.models.device import describe_device

    return {name: str(value) for name, value in describe_device().items()}


def _joined(device: Any) -> Any:
    from trainables.training.process_group import TorchProcessGroup

    return TorchProcessGroup.joined(device)


def _own_folder(folder: TrialFolder, process_group: Any) -> TrialFolder:
    from trainables.storage.ownership import acquire_ownership, refuse_another_folder

    refuse_another_folder(folder)
    if folder.mirror is not None:
        process_group.check_same(_ONE_DISK, [socket.gethostname(), str(folder.path)])
    if process_group.rank == 0:
        taken = acquire_ownership(folder)
        process_group.barrier()
        return taken
    process_group.barrier()
    return FollowerFolder(folder.path)


def _trial(spec: TrialSpec, folder: TrialFolder, *, device: Any, process_group: Any) -> Any:
    from trainables.data.trial_data import load_data
    from trainables.models.model_folder import check_model
    from trainables.training.trial import TrialContext

    process_group.check_same("the trial", _identity(spec, process_group))
    check_model(spec)
    base = _base(spec, device)
    process_group.check_same("the tokenizer", base.tokenizer_digest)
    data = load_data(spec, base, {})
    return TrialContext(
        spec=spec, base=base, folder=folder, data=data, process_group=process_group, in_place=True
    )


def _identity(spec: TrialSpec, process_group: Any) -> dict[str, Any]:
    """What all ranks must have alike; their number is that of the spec's workers."""
    from trainables.models.device import package_versions
    from trainables.training.process_group import DisagreementError

    workers = spec.knobs.get("workers", 1)
    if workers != process_group.size:
        raise DisagreementError(
            f"the trial asks for {workers} workers, and {process_group.size} have come"
        )
    return {"spec": spec.to_json(), "packages": package_versions()}


def _together(heartbeat: Callable[[], None], process_group: Any) -> Callable[[], None]:
    """All ranks leave at the same beat, or none."""
    from trainables.errors import Interrupted

    def beat() -> None:
        is_asked = False
        try:
            heartbeat()
        except Interrupted:
            is_asked = True
        if process_group.max(float(is_asked)):
            raise Interrupted

    return beat


def _base(spec: TrialSpec, device: Any) -> Any:
    """On the CPU at first where it may be split: it may be larger than one device."""
    from trainables.models.base import load_base

    if not spec.knobs.get("zero_stage", 0):
        return load_base(spec, device=str(device))
    base = load_base(spec, device="cpu")
    line_ends, blanks = base.line_ends.to(device), base.blanks.to(device)
    return replace(base, device=device, line_ends=line_ends, blanks=blanks)
