"""Failure and Interruption: what a host answers besides events."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.errors import first_line
from trainables.spec.events import Event
from trainables.storage.errors import storage_error_in
from trainables.storage.ownership import OwnershipLostError
from trainables.storage.trial_folder import TrialFolder

LOADING_TAKES = 4.0  # times the silence that a trial is allowed: a base may be a long download


@dataclass(frozen=True)
class Failure:
    """Why a trial can't go on; infeasible: it doesn't fit the device it was tried on.

    `share_bytes`: it was given a share of a device, and that was not enough. No fault of the
    trial's: its folder can't be written (storage), or another process has taken it over.
    """

    reason: str
    infeasible: bool = False
    share_bytes: int | None = None
    storage: bool = False
    taken_over: bool = False


@dataclass(frozen=True)
class Interruption:
    """The trial has left the host, with a checkpoint; this host starts none any more."""


def write_down(folder: TrialFolder, event: Event) -> None:
    """Into the trial's log, its progress, and what it has told of."""
    numbers = " ".join(f"{name}={value:.6g}" for name, value in event.metrics.items())
    clock = time.strftime("%H:%M:%S")
    folder.append_log(f"{clock} {event.kind} step {event.step} {event.units} {numbers}")
    if event.kind == "progress":
        folder.append_reported_step(event.step)
    folder.write_progress(event.to_json() | {"state": "running", "updated": time.time()})


def failure_of(error: Exception, *, share_bytes: int | None = None) -> Failure:
    """What whoever runs a trial is told of an error that ended it."""
    does_not_fit = _does_not_fit(error)
    share = share_bytes if does_not_fit else None
    return Failure(
        first_line(error) if share is None else _too_small(share, error),
        infeasible=does_not_fit,
        share_bytes=share,
        storage=storage_error_in(error) is not None,
        taken_over=any(isinstance(told, OwnershipLostError) for told in _chain(error)),
    )


def finished_event(summary: Mapping[str, Any]) -> Event:
    """The last event of a trial that has finished, from its summary."""
    return Event(
        kind="finished",
        step=summary["step"],
        units=summary["units"],
        metrics=summary["metrics"],
        fraction=1.0,
        seconds=summary["seconds"]["total"],
    )


def _finished(summary: Mapping[str, Any]) -> Generator[Event, None, None]:
    """What is left of a trial that another host has finished: its last event."""
    yield finished_event(summary)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def _too_small(share_bytes: int, error: Exception) -> str:
    share = f"{share_bytes / (1 << 30):.2f} GiB"
    return f"needs more than its share of the device, {share} ({first_line(error)})"


def _does_not_fit(error: Exception) -> bool:
    import torch

    from trainables.resources.out_of_memory import DoesNotFitError

    return isinstance(error, torch.OutOfMemoryError | MemoryError | DoesNotFitError)
