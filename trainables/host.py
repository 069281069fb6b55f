"""Host: a Ray actor that holds the accelerator and one frozen base, and trains one trial at a time.

A host outlives its trials: the process, its imports, its tokenized data and, where the next trial
wants the same one, its base stay. This is the only file of the worker that imports ray.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from trainables.run_folder import TrialFolder
from trainables.spec import Event, TrialSpec

HEARTBEAT_SECONDS = 10.0  # a reader takes a trial that is silent for a minute to be dead


@dataclass(frozen=True)
class Failure:
    """Why a trial can't go on; infeasible: it doesn't fit the device it was tried on."""

    reason: str
    infeasible: bool = False


class HostProcess:
    """What a host does, without Ray: `start` a trial, take its events by `next`, `close` it."""

    def __init__(self, provenance: Mapping[str, str]) -> None:
        self._provenance = dict(provenance)
        self._device = "cpu"
        self._base: Any = None
        self._data_cache: dict[Any, Any] = {}
        self._running: Generator[Event, None, None] | None = None
        self._folder: TrialFolder | None = None
        self.loads = 0

    def warm_up(self) -> dict[str, Any]:
        """Imports what trials need and describes the device (see `models.describe_device`)."""
        from trainables.models import describe_device, resolve_compute_dtype, warm_imports

        warm_imports()
        description: dict[str, Any] = dict(describe_device())
        self._device = description["device_type"]
        self._provenance |= {name: str(value) for name, value in description.items()}
        return description | {"compute_dtype": resolve_compute_dtype("auto", self._device)}

    def start(self, folder: str) -> list[Event] | Failure:
        """Makes the trial ready to run; returns the events of the checkpoint it goes on from."""
        self.close()
        self._folder = TrialFolder(Path(folder))
        try:
            return self._prepare()
        except Exception as error:  # noqa: BLE001  # the worker boundary: a trial may fail, a host not
            return self._failed(error)

    def next(self) -> Event | Failure:
        """The trial's next event."""
        if self._running is None:
            return Failure("no trial is running on this host")
        try:
            event = next(self._running)
            self._log(event)
        except Exception as error:  # noqa: BLE001  # the worker boundary
            return self._failed(error)
        if event.kind == "finished":
            self.close()
        return event

    def close(self) -> None:
        """Ends the running trial, if any; it saves a checkpoint first."""
        running, self._running = self._running, None
        if running is None:
            return
        try:
            running.close()
        except Exception as error:  # noqa: BLE001  # the worker boundary: the next trial is not to blame
            self._failed(error)
        gc.collect()

    def score_report(self, folder: str) -> dict[str, Any] | Failure:
        """Scores a finished trial on the report split; the result lies in its folder too."""
        from trainables.judge import score_report

        self.close()
        self._folder = TrialFolder(Path(folder))
        try:
            return score_report(self._trial())
        except Exception as error:  # noqa: BLE001  # the worker boundary
            return self._failed(error)

    def _prepare(self) -> list[Event]:
        from trainables.train import train
        from trainables.trial import resumed_history

        trial = self._trial()
        assert self._folder is not None
        history = resumed_history(self._folder)
        self._running = train(replace(trial, heartbeat=_heartbeat(self._folder)))
        return history

    def _trial(self) -> Any:
        from trainables.data import load_data
        from trainables.identity import check_model
        from trainables.trial import Trial

        assert self._folder is not None
        spec = self._folder.spec()
        check_model(spec)
        base = self._base_for(spec)
        data = load_data(spec, base, self._data_cache)
        return Trial(
            spec=spec, base=base, folder=self._folder, data=data, provenance=self._provenance
        )

    def _base_for(self, spec: TrialSpec) -> Any:
        from trainables.models import load_base

        if self._base is None or self._base.key != spec.base_key:
            self._base = None
            _free_memory()
            self._base = load_base(spec, device=self._device)
            self.loads += 1
        return self._base

    def _failed(self, error: Exception) -> Failure:
        self._running = None
        self._base = None  # a trial that broke off may have left its marks on it
        if self._folder is not None:
            self._folder.append_log("".join(traceback.format_exception(error)))
        failure = Failure(_reason(error), infeasible=_does_not_fit(error))
        for told in _chain(error):
            traceback.clear_frames(told.__traceback__)  # they hold the model and its gradients
        _free_memory()
        return failure

    def _log(self, event: Event) -> None:
        assert self._folder is not None
        numbers = " ".join(f"{name}={value:.6g}" for name, value in event.metrics.items())
        clock = time.strftime("%H:%M:%S")
        self._folder.append_log(f"{clock} {event.kind} step {event.step} {event.units} {numbers}")
        self._folder.write_progress(event.to_json() | {"state": "running", "updated": time.time()})


def _heartbeat(folder: TrialFolder) -> Callable[[], None]:
    """Says that the trial still runs, now and then, and leaves what its last event said."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last < HEARTBEAT_SECONDS:
            return
        now = {"state": "running", "updated": time.time()}
        folder.write_progress({**(folder.progress() or {}), **now})
        last = time.monotonic()

    return beat


def _free_memory() -> None:
    """Gives back what nothing refers to any more; torch keeps a GPU's memory for itself else."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def _reason(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0] if first else ''}".rstrip(": ")


def _does_not_fit(error: Exception) -> bool:
    import torch

    from trainables.engine import DoesNotFitError

    return isinstance(error, torch.OutOfMemoryError | MemoryError | DoesNotFitError)


Host = ray.remote(HostProcess)
