"""Failure and Interruption: what a host returns instead of an event."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.errors import first_line
from trainables.spec.events import Event
from trainables.storage.errors import storage_error_in
from trainables.storage.ownership import OwnershipLostError
from trainables.storage.trial_folder import TrialFolder

# https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api/types.html#ncclresult-t
_OF_ANOTHER = re.compile(
    r"gloo|Dist(Backend|Network|Store)?Error|NCCL communicator was aborted"
    r"|Watchdog caught collective operation timeout"
)
_NCCL_OF_ITS_OWN = re.compile(r"nccl(UnhandledCudaError|InvalidArgument|InvalidUsage)")
LOADING_FACTOR = 4.0  # longer than other silence: loading a base may be a long download


@dataclass(frozen=True)
class Failure:
    """Why a trial cannot go on.

    `infeasible`: it does not fit the device. `share_bytes`: the share of a device that it was given
    and that was too small. `storage`: its folder cannot be written. `taken_over`: another process
    has acquired its folder. The last two are not caused by the trial. `may_repeat`: other trials
    may fail for the same reason; not a lost node or connection, and no loss that has diverged.
    """

    reason: str
    infeasible: bool = False
    share_bytes: int | None = None
    storage: bool = False
    taken_over: bool = False
    may_repeat: bool = False


@dataclass(frozen=True)
class Interruption:
    """The trial has saved a checkpoint and left the host, which starts no other trial."""


def record_event(folder: TrialFolder, event: Event) -> None:
    """Writes an event to the trial's log, its progress and its list of reported steps."""
    numbers = " ".join(f"{name}={value:.6g}" for name, value in event.metrics.items())
    clock = time.strftime("%H:%M:%S")
    folder.append_log(f"{clock} {event.kind} step {event.step} {event.units} {numbers}")
    if event.kind == "progress":
        folder.append_reported_step(event.step)
    folder.write_progress(event.to_json() | {"state": "running", "updated": time.time()})


def failure_of(error: Exception, *, share_bytes: int | None = None) -> Failure:
    """The Failure to return for an error that ended a trial."""
    does_not_fit = _does_not_fit(error)
    share = share_bytes if does_not_fit else None
    return Failure(
        first_line(error) if share is None else _too_small(share, error),
        infeasible=does_not_fit,
        share_bytes=share,
        storage=storage_error_in(error) is not None,
        taken_over=any(isinstance(cause, OwnershipLostError) for cause in error_chain(error)),
        may_repeat=not does_not_fit and _may_repeat(error),
    )


def is_of_another_worker(text: str) -> bool:
    """Whether an error's name and message, or its traceback, is that of a collective operation that
    failed because another worker is gone or hangs; under Gloo, under NCCL, and at the store by
    which workers join."""
    return _OF_ANOTHER.search(text) is not None and _NCCL_OF_ITS_OWN.search(text) is None


def finished_event(summary: Mapping[str, Any]) -> Event:
    """The last event of a finished trial, from its summary."""
    return Event(
        kind="finished",
        step=summary["step"],
        units=summary["units"],
        metrics=summary["metrics"],
        fraction=1.0,
        seconds=summary["seconds"]["total"],
    )


def finished_events(summary: Mapping[str, Any]) -> Generator[Event, None, None]:
    """The events that are left of a finished trial: the last one."""
    yield finished_event(summary)


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, its cause, the cause of that, and so on."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def _too_small(share_bytes: int, error: Exception) -> str:
    share = f"{share_bytes / (1 << 30):.2f} GiB"
    return f"needs more than its share of the device, {share} ({first_line(error)})"


def _may_repeat(error: Exception) -> bool:
    from trainables.training.loop import TrainingFailedError

    return not isinstance(error, TrainingFailedError | ConnectionError | TimeoutError)


def _does_not_fit(error: Exception) -> bool:
    import torch

    from trainables.resources.out_of_memory import DoesNotFitError

    return isinstance(error, torch.OutOfMemoryError | MemoryError | DoesNotFitError)
