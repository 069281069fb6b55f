"""Gang: a trial that several workers train together, behind the interface of a host.

Ray Train starts the workers, joins them by torch.distributed and ends them all when one dies. The
front is an actor on the head node: it takes a trial's events from rank 0 and says what comes next.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ray

from orchestrator.cluster.train_run import TRAIN_FOLDER, Layout, failure_of_train, run_train
from trainables.models.hub import HubAccess
from trainables.spec.events import Event
from trainables.spec.states import FINISHED
from trainables.storage.run_folder import trial_at
from trainables.workers.outcomes import Failure, Interruption, finished_event, write_down

if TYPE_CHECKING:
    from trainables.workers.group_member import Decision

SECONDS_TO_ABORT = 120.0  # what Ray Train is given to end its workers, which may just be starting
LOOKS_EVERY_SECONDS = 0.2  # whether a trial that waits for a decision is interrupted


class WorkerGroup:
    """Coordinates the workers of one trial. `start`, `next`, `close` as a host's, one at a time.

    Rank 0 calls the methods of `trainables.workers.group_member.Coordinator`; every rank waits in
    `until_death`.
    """

    def __init__(self, layout: Layout, provenance: Mapping[str, str]) -> None:
        self._layout, self._provenance = layout, dict(provenance)
        self._told: queue.Queue[list[Event] | Event | Failure | Interruption | None] = queue.Queue()
        self._decisions: queue.Queue[Decision] = queue.Queue()
        self._interrupted = threading.Event()
        self._abandoned = threading.Event()
        self._begun = False
        self._failure: Failure | None = None
        self._fit: threading.Thread | None = None
        self._finished: Event | None = None
        self._controller: Any = None
        self._hub = HubAccess()

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def set_hub_access(self, access: HubAccess) -> None:
        """How the workers reach the hub; in a call, because Ray keeps what an actor or Ray Train
        is configured with, a token too."""
        self._hub = access

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def hub_access(self) -> HubAccess:
        return self._hub

    def start(
        self, folder: str, silent_seconds: float | None = None
    ) -> list[Event] | Failure | Interruption:
        """Starts the workers; returns the events of the checkpoint that they go on from."""
        self._folder = trial_at(folder)
        self._folder.pull()
        summary = self._folder.summary()
        if summary is not None and summary.get("state") == FINISHED:
            self._finished = finished_event(summary)
            return [Event.from_json(event) for event in summary["history"]]
        if self._interrupted.is_set():
            return Interruption()
        me = ray.get_runtime_context().current_actor
        given = {
            "coordinator": me,
            "folder": folder if self._folder.mirror else str(self._folder.path.resolve()),
            "working_copy": str(self._folder.path.resolve()),
            "provenance": self._provenance,
            "silent_seconds": silent_seconds,
            "device_shared": self._layout.device_shared,
        }
        self._fit = threading.Thread(target=self._run, args=(given,), daemon=True)
        self._fit.start()
        started: list[Event] | Failure | Interruption = self._receive()
        return started

    def next(self) -> Event | Failure | Interruption:
        """The trial's next event."""
        if self._finished is not None:
            return self._finished
        if self._fit is None:
            return Failure("no trial is running here")
        self._decisions.put("go on")
        event: Event | Failure | Interruption = self._receive()
        return event

    def close(self, *, discard: bool = False) -> int:
        """Ends the trial, if one runs, and its workers; it saves a checkpoint first.

        Discard: the trial has ended for good; nothing is saved and its checkpoints go.
        """
        if self._fit is not None:
            self._decisions.put("discard" if discard else "close")
            self._fit.join()
        return 0

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def interrupt(self) -> None:
        """The trial leaves after its current optimizer step, or batch of an evaluation.

        Returns when its checkpoint is written.
        """
        self._interrupted.set()
        if self._fit is not None:
            self._fit.join()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def cancel_unless_started(self) -> None:
        """The trial leaves, as after `interrupt`, if its workers have not begun yet."""
        if not self._begun:
            self.interrupt()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def abandon(self) -> None:
        """Ends the workers, wherever they are, and then this process.

        Killed instead, it would take Train's controller with it, which alone gives back what Ray
        has reserved for the workers, or is asked to reserve.
        """
        self._abandoned.set()
        if self._fit is not None and self._fit.is_alive():
            if self._controller is not None:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.get(self._controller.abort.remote(), timeout=SECONDS_TO_ABORT)
            self._fit.join(SECONDS_TO_ABORT)
        ray.kill(ray.get_runtime_context().current_actor)  # Ray tells of other ends as of a crash

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def ping(self) -> None:
        """Returns if the process lives."""

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def until_death(self) -> None:
        """Never returns: whoever waits for it is told by Ray when the process has died."""
        threading.Event().wait()

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def until_interrupted(self) -> None:
        self._interrupted.wait()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def controlled_by(self, controller: Any) -> None:
        """Train's controller, which has just been started for this trial."""
        self._controller = controller

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def is_wanted(self) -> bool:
        """Whether workers are to be started, or waited for, still."""
        return not (self._abandoned.is_set() or self._interrupted.is_set())

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_start(self, history: list[Event]) -> Decision:
        self._begun = True
        self._told.put(history)
        return self._decided()

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_event(self, event: Event) -> Decision:
        write_down(self._folder, event)
        self._told.put(event)
        return self._decided()

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_finish(self, event: Event) -> None:
        write_down(self._folder, event)
        self._told.put(event)

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_interrupt(self) -> None:
        self._told.put(Interruption())

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_failure(self, failure: Failure) -> None:
        self._failure = self._failure or failure

    def _decided(self) -> Decision:
        """What whoever asks for events wants next; an interruption decides too."""
        while not self._interrupted.is_set():
            with contextlib.suppress(queue.Empty):
                return self._decisions.get(timeout=LOOKS_EVERY_SECONDS)
        self._told.put(Interruption())
        return "close"

    def _receive(self) -> Any:
        """What the workers tell next. Without them this process ends, as a host would that dies.

        After an interruption the driver may end at once: it is told when the workers have ended.
        """
        told = self._told.get()
        if told is None:
            os._exit(1)
        if isinstance(told, Interruption) and self._fit is not None:
            self._fit.join()  # their checkpoint is written then
        return told

    def _run(self, given: dict[str, Any]) -> None:
        """Runs the workers to their end; what they can't tell themselves is told here."""
        from ray.train import TrainingFailedError

        try:
            with contextlib.suppress(ray.exceptions.RayError):  # the controller is gone
                run_train(given, self._layout)
        except TrainingFailedError as error:
            self._told.put(self._failure or failure_of_train(error) or self._end_of_the_workers())
        finally:
            shutil.rmtree(self._folder.path / TRAIN_FOLDER, ignore_errors=True)
            self._told.put(self._failure)  # for whoever still waits

    def _end_of_the_workers(self) -> Interruption | None:
        """What it means that they are gone; None: they were lost."""
        return Interruption() if self._interrupted.is_set() else None


def worker_group_actor(layout: Layout, provenance: Mapping[str, str]) -> Any:
    """A front as a Ray actor on the head node, which takes no CPU of its own.

    What Ray Train leaves behind to clean up after a controller that dies asks for the cluster by
    its address, which it has to be told where several run on one machine.
    """
    address = ray.get_runtime_context().gcs_address
    actor = ray.remote(concurrency_groups=_groups(layout.workers))(WorkerGroup).options(
        num_cpus=0,
        resources={"node:__internal_head__": 0.001},
        runtime_env={"env_vars": {"RAY_ADDRESS": address}},
    )
    return actor.remote(layout, provenance)


def _groups(workers: int) -> dict[str, int]:
    """Threads for the calls that wait. Every rank waits in `until_death`; those for whom there is
    none in `until_interrupted` get the threads of the others, which all return together."""
    return {"control": 4, "ranks": workers + 1, "watch": workers + 3}
