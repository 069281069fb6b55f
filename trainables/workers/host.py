"""Host: a Ray actor that holds the accelerator and a frozen base, and trains one trial at a time.

A host outlives its trials: the process keeps its imports, its tokenized data and, if the next trial
uses the same one, its base. This is the only file of the worker that imports Ray.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import traceback
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from trainables.errors import Discarded, Interrupted
from trainables.hub_data import HubData, fetch_data
from trainables.models.hub import HubAccess, HubModel, fetch_all
from trainables.spec.events import Event
from trainables.spec.states import FINISHED
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.ownership import OwnershipLostError, acquire_ownership
from trainables.storage.run_folder import trial_at
from trainables.storage.trial_folder import TrialFolder
from trainables.workers.heartbeat import Watchdog
from trainables.workers.outcomes import (
    LOADING_FACTOR,
    Failure,
    Interruption,
    error_chain,
    failure_of,
    finished_events,
    record_event,
)


class HostProcess:
    """A host's process: `start` starts a trial, `next` returns its events, `close` ends it.

    `interrupt` may be called at any time from another thread.
    """

    def __init__(self, provenance: Mapping[str, str]) -> None:
        self._provenance = dict(provenance)
        self._device = "cpu"
        self._base: Any = None
        self._data_cache: dict[Any, Any] = {}
        self._running: Generator[Event, None, None] | None = None
        self._folder: TrialFolder | None = None
        self._watchdog: Watchdog | None = None
        self._interrupted = threading.Event()
        self._stepping = threading.Lock()  # held while the running trial computes
        self._share_bytes: int | None = None
        self._device_shared = False
        self.loads = 0

    def fetch_models(
        self, models: Sequence[HubModel], access: HubAccess, data: Sequence[HubData]
    ) -> None:
        """Fetches models and data sets of the hub to this node; called before any other method."""
        fetch_all(models, access)
        fetch_data(data)

    def warm_up(self) -> dict[str, Any]:
        """Imports what trials need; returns a description of the device (see `describe_device`)."""
        from trainables.models.base import warm_imports
        from trainables.models.device import describe_device, resolve_compute_dtype

        warm_imports()
        gc.collect()
        gc.freeze()  # otherwise the end of each trial scans all imported objects, for 0.4 s
        description: dict[str, Any] = dict(describe_device())
        self._device = description["device_type"]
        self._provenance |= {name: str(value) for name, value in description.items()}
        return description | {"compute_dtype": resolve_compute_dtype("auto", self._device)}

    def node_id(self) -> str:
        """The id in Ray of the node that this process runs on."""
        return str(ray.get_runtime_context().get_node_id())

    def start(
        self, folder: str, silent_seconds: float | None = None
    ) -> list[Event] | Failure | Interruption:
        """Prepares the trial; returns the events of the checkpoint that it resumes from.

        A host that ran the trial before can no longer write its folder. If the trial has finished
        there, `next` returns its last event. `silent_seconds`: see `Watchdog`; loading a base may
        take LOADING_FACTOR times as long.
        """
        self.close()
        self._folder = None
        try:
            self._folder = acquire_ownership(trial_at(folder))
            self._watchdog = Watchdog(
                self._folder, interrupted=self._interrupted, silent_seconds=silent_seconds
            )
            with self._watchdog.guard(factor=LOADING_FACTOR):
                return self._prepare()
        except Exception as error:  # noqa: BLE001  # the worker boundary: a trial may fail, a host not
            return self._failed(error)

    def next(self) -> Event | Failure | Interruption:
        """Returns the trial's next event."""
        with self._stepping:
            if self._interrupted.is_set():
                self._leave()
                return Interruption()
            if self._running is None:
                return Failure("no trial is running on this host")
            return self._next(self._running)

    def close(self, *, discard: bool = False) -> int:
        """Ends the running trial, if any, after it has saved a checkpoint; returns `held_bytes`.

        `discard`: the trial will not be resumed: nothing is saved and its checkpoints are deleted.
        """
        with self._stepping:
            self._leave(discard=discard)
            return self.held_bytes()

    def held_bytes(self) -> int:
        """Bytes of its device's memory that the host holds while no trial runs on it.

        On a GPU this includes the process's own overhead, on a CPU only the base.
        """
        if self._device == "cpu":
            return 0 if self._base is None else int(self._base.weight_bytes)
        from trainables.resources.gpu_share import held_on_gpu

        return held_on_gpu()

    def forget_base(self) -> None:
        """Drops the base to free its memory; does nothing while a trial runs."""
        if self._running is None:
            self._base = None
            gc.collect()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def interrupt(self) -> None:
        """Ends the running trial after its current optimizer step or evaluation batch.

        Returns when its checkpoint is written. No trial starts on this host afterwards; scoring a
        report split is not interrupted.
        """
        self._interrupted.set()
        with self._stepping:
            self._leave()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def set_share(self, share_bytes: int | None, *, device_shared: bool) -> None:
        """Sets the bytes of the device that the next trial may take (None: all).

        On a GPU torch refuses to allocate more, so that a trial that needs more fails alone.
        `device_shared`: other trials may compute on the device meanwhile.
        """
        self._share_bytes, self._device_shared = share_bytes, device_shared
        if self._device != "cpu":
            from trainables.resources.gpu_share import limit_gpu

            limit_gpu(share_bytes)

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def ping(self) -> None:
        """Returns if the process lives."""

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def until_death(self) -> None:
        """Never returns; the call raises RayActorError when the process dies."""
        threading.Event().wait()

    def score_report(
        self, folder: str, silent_seconds: float | None = None
    ) -> dict[str, Any] | Failure:
        """Scores a finished trial on the report split; writes the result to its folder too.

        It has a heartbeat, and may be silent as long as a trial that starts.
        """
        from trainables.training.full_evaluation import score_report

        self.close()
        self._folder = None
        try:
            self._folder = acquire_ownership(trial_at(folder))
            watchdog = Watchdog(
                self._folder, interrupted=threading.Event(), silent_seconds=silent_seconds
            )
            with watchdog.guard(factor=LOADING_FACTOR):
                self._folder.pull_trained()
                return score_report(replace(self._trial(), heartbeat=watchdog.beat))
        except Exception as error:  # noqa: BLE001  # the worker boundary
            return self._failed(error)

    def _next(self, running: Generator[Event, None, None]) -> Event | Failure | Interruption:
        assert self._watchdog is not None
        try:
            with self._watchdog.guard():
                event = next(running)
            self._log(event)
        except Interrupted:
            self._running = None
            return Interruption()
        except Exception as error:  # noqa: BLE001  # the worker boundary
            return self._failed(error)
        if event.kind == "finished":
            self._leave()
        return event

    def _leave(self, *, discard: bool = False) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        try:
            if discard:
                self._discard(running)
            else:
                running.close()
        except Exception as error:  # noqa: BLE001  # the worker boundary: the next trial must not fail for it
            self._failed(error)
        gc.collect()

    def _discard(self, running: Generator[Event, None, None]) -> None:
        assert self._folder is not None
        with contextlib.suppress(Discarded):
            running.throw(Discarded())
        self._folder.discard_checkpoints()

    def _prepare(self) -> list[Event] | Interruption:
        from trainables.resources.system_metrics import SystemSampler
        from trainables.training.loop import train
        from trainables.training.progress import resumed_history

        assert self._folder is not None and self._watchdog is not None
        summary = self._folder.summary()
        if summary is not None and summary.get("state") == FINISHED:
            self._running = finished_events(summary)
            return [Event.from_json(event) for event in summary["history"]]
        trial = self._trial()
        history = resumed_history(self._folder)
        if self._interrupted.is_set():
            return Interruption()
        trial = replace(trial, heartbeat=self._watchdog.beat, sample=SystemSampler())
        self._running = train(trial)
        return history

    def _trial(self) -> Any:
        """Loads the base and the data that the folder's spec names, unless they are loaded."""
        from trainables.data.trial_data import load_data
        from trainables.models.model_folder import check_model
        from trainables.resources.out_of_memory import memory_errors
        from trainables.training.trial import TrialContext

        assert self._folder is not None
        began = time.perf_counter()
        spec = self._folder.spec()
        check_model(spec)
        with memory_errors():
            base = self._base_for(spec)
        data = load_data(spec, base, self._data_cache)
        return TrialContext(
            spec=spec,
            base=base,
            folder=self._folder,
            data=data,
            provenance=self._provenance,
            device_shared=self._device_shared,
            load_seconds=time.perf_counter() - began,
        )

    def _base_for(self, spec: TrialSpec) -> Any:
        from trainables.models.base import load_base
        from trainables.resources.out_of_memory import free_memory

        if self._base is None or self._base.key != spec.base_key:
            self._base = None
            free_memory()
            self._base = load_base(spec, device=self._device)
            self.loads += 1
        return self._base

    def _failed(self, error: Exception) -> Failure:
        from trainables.resources.out_of_memory import free_memory

        self._running = None
        self._base = None  # a failed trial may have changed it
        self._log_error(error)
        failure = failure_of(error, share_bytes=self._share_bytes)
        for cause in error_chain(error):
            traceback.clear_frames(cause.__traceback__)  # they hold the model and its gradients
        free_memory()
        return failure

    def _log_error(self, error: Exception) -> None:
        """Writes the error to the trial's log, unless its disk is full or its owner has changed."""
        if self._folder is not None:
            with contextlib.suppress(OSError, OwnershipLostError):
                self._folder.append_log("".join(traceback.format_exception(error)))
                self._folder.publish_signs()

    def _log(self, event: Event) -> None:
        assert self._folder is not None
        record_event(self._folder, event)


Host = ray.remote(concurrency_groups={"control": 2, "watch": 1})(HostProcess)
