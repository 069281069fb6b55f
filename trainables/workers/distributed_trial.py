"""Distributed training of one trial by several processes that torch.distributed has joined.

Every rank runs the training loop on its share of each batch; all evaluate the same questions.
Rank 0 is the leader: its clock counts, and it writes the trial's folder, except for the shards of
checkpoints.
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

_WORKING_COPY = "the working copy (several nodes need --storage in a folder that they share)"


def train_distributed(
    folder: str | Path,
    *,
    provenance: Mapping[str, Any],
    heartbeat: Callable[[], None] = lambda: None,
    sample: Callable[[], Mapping[str, float]] = dict,
    device_shared: bool = False,
) -> Generator[Event, str | None, None]:
    """Runs `train` for the trial in `folder` on all ranks of the default process group.

    Every rank yields the same events in the same order (except their `seconds` and `system`), each
    after all ranks have written what belongs to it. Closing the generator, or throwing into it at
    an event, must be done on all ranks, and then has the same effect as on `train`. A heartbeat
    that raises Interrupted on one rank interrupts all. `folder` must be the same storage for all
    ranks; if it is in a bucket, they must be on one machine.

    Raises DisagreementError if the ranks do not have the same trial, model, data and packages, and
    what `train` raises. If a rank dies the others wait for it, so the process that has started
    them must end them.
    """
    began = time.perf_counter()
    trial = _joined_trial(folder, heartbeat)
    trial = replace(
        trial,
        provenance={**provenance, **_device_facts()},
        sample=sample,
        device_shared=device_shared,
        load_seconds=time.perf_counter() - began,
    )
    from trainables.training.loop import train

    yield from train(trial)


def score_distributed(
    folder: str | Path, *, heartbeat: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Runs `score_report` for the finished trial in `folder` on all ranks; returns the score.

    Raises what `train_distributed` and `score_report` do.
    """
    trial = _joined_trial(folder, heartbeat)
    from trainables.training.full_evaluation import score_report

    score = score_report(trial)
    trial.process_group.barrier()
    return score


class FollowerFolder(TrialFolder):
    """The trial's folder on ranks other than the leader: it reads, and writes nothing."""

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Does nothing: the leader writes it."""

    def write_predictions(self, rows: Iterable[Mapping[str, Any]], split: str = "selection") -> str:
        """Returns the digest that the leader's file has."""
        return hashlib.sha256(prediction_lines(rows)).hexdigest()

    def write_report_score(self, score: Mapping[str, Any]) -> None:
        """Does nothing: the leader writes it."""

    def discard_result(self) -> None:
        """Does nothing: the leader deletes it."""

    def discard_checkpoints(self) -> None:
        """Does nothing: the leader deletes them."""


def _joined_trial(folder: str | Path, heartbeat: Callable[[], None]) -> Any:
    """The trial on this rank, which all ranks have joined, with its base and data."""
    device = _device()
    process_group = _process_group(device)
    own = _own_folder(trial_at(str(folder)), process_group)
    trial = _trial(own.spec(), own, device=device, process_group=process_group)
    return replace(trial, heartbeat=_on_all_ranks(heartbeat, process_group))


def _device() -> Any:
    """This rank's device; without a GPU DeepSpeed must be configured before it is imported."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _device_facts() -> dict[str, str]:
    """The description of this rank's device, as in the provenance that a host writes."""
    from trainables.models.device import describe_device

    return {name: str(value) for name, value in describe_device().items()}


def _process_group(device: Any) -> Any:
    from trainables.training.process_group import TorchProcessGroup

    return TorchProcessGroup.joined(device)


def _own_folder(folder: TrialFolder, process_group: Any) -> TrialFolder:
    from trainables.storage.ownership import acquire_ownership, refuse_another_folder

    refuse_another_folder(folder)
    if folder.mirror is not None:
        process_group.check_same(_WORKING_COPY, [socket.gethostname(), str(folder.path)])
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

    process_group.check_same("the trial", _shared_facts(spec, process_group))
    check_model(spec)
    base = _base(spec, device)
    process_group.check_same("the tokenizer", base.tokenizer_digest)
    data = load_data(spec, base, {})
    return TrialContext(
        spec=spec, base=base, folder=folder, data=data, process_group=process_group, in_place=True
    )


def _shared_facts(spec: TrialSpec, process_group: Any) -> dict[str, Any]:
    """What must be equal on all ranks. Raises DisagreementError if their number is wrong."""
    from trainables.models.device import package_versions
    from trainables.training.process_group import DisagreementError

    workers = spec.knobs.get("workers", 1)
    if workers != process_group.size:
        raise DisagreementError(
            f"the trial has {workers} workers, but {process_group.size} processes have joined"
        )
    return {"spec": spec.to_json(), "packages": package_versions()}


def _on_all_ranks(heartbeat: Callable[[], None], process_group: Any) -> Callable[[], None]:
    """A heartbeat that raises Interrupted on all ranks if `heartbeat` does so on one."""
    from trainables.errors import Interrupted

    def beat() -> None:
        is_interrupted = False
        try:
            heartbeat()
        except Interrupted:
            is_interrupted = True
        if process_group.max(float(is_interrupted)):
            raise Interrupted

    return beat


def _base(spec: TrialSpec, device: Any) -> Any:
    """The base model; with ZeRO on the CPU, because it may be too large for one device."""
    from trainables.models.base import load_base

    if not spec.knobs.get("zero_stage", 0):
        return load_base(spec, device=str(device))
    base = load_base(spec, device="cpu")
    line_ends, blanks = base.line_ends.to(device), base.blanks.to(device)
    return replace(base, device=device, line_ends=line_ends, blanks=blanks)
