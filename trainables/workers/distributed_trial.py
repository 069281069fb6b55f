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
    team = _joined(device)
    place = _own_folder(trial_at(str(folder)), team)
    spec = place.spec()
    trial = _trial(spec, place, device=device, team=team)
    trial = replace(
        trial,
        provenance={**provenance, **_device_facts()},
        sample=sample,
        heartbeat=_together(heartbeat, team),
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
    from trainables.training.process_group import Ranks

    return Ranks.joined(device)


def _own_folder(folder: TrialFolder, team: Any) -> TrialFolder:
    from trainables.storage.ownership import refuse_another_folder, take_over

    refuse_another_folder(folder)
    if folder.mirror is not None:
        team.check_same(_ONE_DISK, [socket.gethostname(), str(folder.path)])
    if team.rank == 0:
        taken = take_over(folder)
        team.wait()
        return taken
    team.wait()
    return FollowerFolder(folder.path)


def _trial(spec: TrialSpec, folder: TrialFolder, *, device: Any, team: Any) -> Any:
    from trainables.data.trial_data import load_data
    from trainables.models.model_folder import check_model
    from trainables.training.trial import Trial

    team.check_same("the trial", _identity(spec, team))
    check_model(spec)
    base = _base(spec, device)
    team.check_same("the tokenizer", base.tokenizer_digest)
    data = load_data(spec, base, {})
    return Trial(spec=spec, base=base, folder=folder, data=data, team=team, spends_base=True)


def _identity(spec: TrialSpec, team: Any) -> dict[str, Any]:
    """What all ranks must have alike; their number is that of the spec's workers."""
    from trainables.models.device import package_versions
    from trainables.training.process_group import DisagreementError

    workers = spec.knobs.get("workers", 1)
    if workers != team.size:
        raise DisagreementError(f"the trial asks for {workers} workers, and {team.size} have come")
    return {"spec": spec.to_json(), "packages": package_versions()}


def _together(heartbeat: Callable[[], None], team: Any) -> Callable[[], None]:
    """All ranks leave at the same beat, or none."""
    from trainables.errors import Interrupted

    def beat() -> None:
        is_asked = False
        try:
            heartbeat()
        except Interrupted:
            is_asked = True
        if team.highest(float(is_asked)):
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
