"""WorkerGroup: a trial that several workers train together, with the interface of a host.

Ray Train starts the workers, joins them by torch.distributed and ends all of them when one dies.
The coordinator is an actor on the head node: it receives the trial's events from rank 0 and returns
the decisions of the driver.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ray

from orchestrator.cluster.train_run import TRAIN_FOLDER, Layout, failure_of_train, run_train
from trainables.models.hub import HubAccess
from trainables.spec.events import Event
from trainables.spec.states import FINISHED
from trainables.storage.run_folder import trial_at
from trainables.workers.outcomes import (
    LOADING_FACTOR,
    Failure,
    Interruption,
    finished_event,
    record_event,
)

if TYPE_CHECKING:
    from trainables.workers.group_member import Decision

ABORT_SECONDS = 120.0  # for Ray Train to end the workers, which may just be starting
LOOKS_EVERY_SECONDS = 10.0  # at the signs of life of workers that are to end
POLL_SECONDS = 0.2  # whether a trial that waits for a decision was interrupted


class WorkerGroup:
    """The coordinator of the workers of one trial.

    The driver calls `start`, `next` and `close` as it does for a host, one at a time. Rank 0 calls
    the methods of `trainables.workers.group_member.Coordinator`; every rank waits in
    `until_death`.
    """

    def __init__(self, layout: Layout, provenance: Mapping[str, str]) -> None:
        self._layout, self._provenance = layout, dict(provenance)
        self._messages: queue.Queue[Any] = queue.Queue()  # of the workers; None: they have ended
        self._decisions: queue.Queue[Decision] = queue.Queue()
        self._silent_seconds: float | None = None
        self._interrupted = threading.Event()
        self._abandoned = threading.Event()
        self._has_started = False
        self._failure: Failure | None = None
        self._train_thread: threading.Thread | None = None
        self._finished: Event | None = None
        self._controller: Any = None
        self._hub = HubAccess()

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def set_hub_access(self, access: HubAccess) -> None:
        """Sets how the workers reach the hub.

        It is an argument of a call because Ray stores the configuration of actors and of Ray Train,
        and it holds a token.
        """
        self._hub = access

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def hub_access(self) -> HubAccess:
        return self._hub

    def start(
        self, folder: str, silent_seconds: float | None = None
    ) -> list[Event] | Failure | Interruption:
        """Starts the workers; returns the events of the checkpoint that they resume from."""
        self._folder, self._silent_seconds = trial_at(folder), silent_seconds
        self._folder.pull()
        summary = self._folder.summary()
        if summary is not None and summary.get("state") == FINISHED:
            self._finished = finished_event(summary)
            return [Event.from_json(event) for event in summary["history"]]
        if self._interrupted.is_set():
            return Interruption()
        self._start_workers(folder)
        started: list[Event] | Failure | Interruption = self._next_message()
        return started

    def score_report(
        self, folder: str, silent_seconds: float | None = None
    ) -> dict[str, Any] | Failure:
        """As that of a host, by workers that split the trial's weights as they did in training."""
        self._folder, self._silent_seconds = trial_at(folder), silent_seconds
        self._folder.pull()
        self._start_workers(folder, scores=True)
        score: dict[str, Any] | Failure = self._next_message()
        self._await_end()
        return score

    def next(self) -> Event | Failure | Interruption:
        """Returns the trial's next event."""
        if self._finished is not None:
            return self._finished
        if self._train_thread is None:
            return Failure("no trial is running here")
        self._decisions.put("continue")
        event: Event | Failure | Interruption = self._next_message()
        return event

    def close(self, *, discard: bool = False) -> int:
        """Ends the trial, if one runs, after it has saved a checkpoint, and its workers.

        `discard`: the trial will not be resumed: nothing is saved and its checkpoints are deleted.
        """
        if self._train_thread is not None:
            self._decisions.put("discard" if discard else "close")
            self._await_end()
        return 0

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def interrupt(self) -> None:
        """Ends the trial after its current optimizer step or evaluation batch.

        Returns when its checkpoint is written. Workers that give no sign of life for as long as a
        trial may be silent are ended, and this process with them.
        """
        self._interrupted.set()
        self._await_end()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def cancel_unless_started(self) -> None:
        """Interrupts the trial if its workers have not started."""
        if not self._has_started:
            self.interrupt()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def abandon(self) -> None:
        """Ends the workers, even if they are just starting, and then this process.

        Killing this process instead would kill Ray Train's controller too, and only the controller
        removes the placement group that it has requested for the workers.
        """
        self._abandoned.set()
        if self._train_thread is not None and self._train_thread.is_alive():
            if self._controller is not None:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.get(self._controller.abort.remote(), timeout=ABORT_SECONDS)
            self._train_thread.join(ABORT_SECONDS)
        ray.kill(ray.get_runtime_context().current_actor)  # Ray reports any other end as a crash

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def ping(self) -> None:
        """Returns if the process lives."""

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def until_death(self) -> None:
        """Never returns; the call raises RayActorError when the process dies."""
        threading.Event().wait()

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def until_interrupted(self) -> None:
        """Returns when the trial is interrupted."""
        self._interrupted.wait()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def set_controller(self, controller: Any) -> None:
        """Sets the actor of Ray Train's controller for this trial."""
        self._controller = controller

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def is_wanted(self) -> bool:
        """Whether the workers are still to be started."""
        return not (self._abandoned.is_set() or self._interrupted.is_set())

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_start(self, history: list[Event]) -> Decision:
        self._has_started = True
        self._messages.put(history)
        return self._next_decision()

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_event(self, event: Event) -> Decision:
        record_event(self._folder, event)
        self._messages.put(event)
        return self._next_decision()

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_finish(self, event: Event) -> None:
        record_event(self._folder, event)
        self._messages.put(event)

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_score(self, score: dict[str, Any]) -> None:
        self._messages.put(score)

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_interrupt(self) -> None:
        self._messages.put(Interruption())

    @ray.method(concurrency_group="ranks")  # type: ignore[untyped-decorator]
    def on_failure(self, failure: Failure) -> None:
        self._failure = self._failure or failure

    def _start_workers(self, folder: str, *, scores: bool = False) -> None:
        arguments = {
            "coordinator": ray.get_runtime_context().current_actor,
            "folder": folder if self._folder.mirror else str(self._folder.path.resolve()),
            "working_copy": str(self._folder.path.resolve()),
            "provenance": self._provenance,
            "silent_seconds": self._silent_seconds,
            "device_shared": self._layout.device_shared,
            "scores": scores,
        }
        self._train_thread = threading.Thread(target=self._run, args=(arguments,), daemon=True)
        self._train_thread.start()

    def _next_decision(self) -> Decision:
        """Waits for the driver's decision; returns "close" if the trial is interrupted first."""
        while not self._interrupted.is_set():
            with contextlib.suppress(queue.Empty):
                return self._decisions.get(timeout=POLL_SECONDS)
        self._messages.put(Interruption())
        return "close"

    def _next_message(self) -> Any:
        """Returns the next message of the workers.

        If they were lost this process ends, as a host would. An Interruption is returned when they
        have ended, because the driver may end at once after it.
        """
        message = self._messages.get()
        if message is None:
            os._exit(1)
        if isinstance(message, Interruption):
            self._await_end()  # their checkpoint is written then
        return message

    def _await_end(self) -> None:
        """Waits until the workers have ended; ends those that are silent for too long."""
        if not self._have_ended():
            self.abandon()

    def _have_ended(self) -> bool:
        """Waits for the workers as long as they give signs of life; whether they have ended."""
        thread, allowed = self._train_thread, self._silent_seconds
        if thread is None:
            return True
        if allowed is None:
            thread.join()
            return True
        every = min(LOOKS_EVERY_SECONDS, allowed / 4)
        allowed *= 1 if self._has_started else LOADING_FACTOR
        began, sign = time.monotonic(), self._folder.sign_of_life(every=every)
        while thread.is_alive() and time.monotonic() - began <= allowed:
            thread.join(every)
            before, sign = sign, self._folder.sign_of_life(every=every)
            began = began if sign == before else time.monotonic()
        return not thread.is_alive()

    def _run(self, arguments: dict[str, Any]) -> None:
        """Runs the workers until they end, and sends the failure that they cannot send."""
        from ray.train import TrainingFailedError

        try:
            with contextlib.suppress(ray.exceptions.RayError):  # the controller is dead
                run_train(arguments, self._layout)
        except TrainingFailedError as error:
            self._messages.put(
                self._failure or failure_of_train(error) or self._message_of_lost_workers()
            )
        finally:
            shutil.rmtree(self._folder.path / TRAIN_FOLDER, ignore_errors=True)
            self._messages.put(self._failure)  # if the driver still waits

    def _message_of_lost_workers(self) -> Interruption | None:
        """An Interruption if one was requested, else None: they were lost."""
        return Interruption() if self._interrupted.is_set() else None


def worker_group_actor(layout: Layout, provenance: Mapping[str, str]) -> Any:
    """Starts a coordinator as a Ray actor on the head node, which takes no CPU.

    RAY_ADDRESS is set because the process by which Ray Train cleans up after a dead controller
    connects to the cluster by it, and several clusters may run on one machine.
    """
    address = ray.get_runtime_context().gcs_address
    actor = ray.remote(concurrency_groups=_concurrency_groups(layout.workers))(WorkerGroup).options(
        num_cpus=0,
        resources={"node:__internal_head__": 0.001},
        runtime_env={"env_vars": {"RAY_ADDRESS": address}},
    )
    return actor.remote(layout, provenance)


def _concurrency_groups(workers: int) -> dict[str, int]:
    """The numbers of threads for calls of each group.

    Every rank waits in `until_death` and in `until_interrupted`. The calls of the latter return all
    together, so those without a thread get one then.
    """
    return {"control": 4, "ranks": workers + 1, "watch": workers + 3}
