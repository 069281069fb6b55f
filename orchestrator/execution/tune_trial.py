"""TuneTrial: a trial as Ray Tune sees it. It imports no torch; it relays the events of a host.

Tune sees an ordinary class Trainable whose `step` returns the trial's next event, so its
schedulers work as documented; with `reuse_actors` one actor serves many trials.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError

from orchestrator.cluster.hosts.devices import ResourceRequest
from orchestrator.cluster.nodes import host_gone
from orchestrator.config.objectives import objectives
from orchestrator.execution.liveness import CancelledWaitError, HostUnresponsiveError, wait_for
from orchestrator.formatting import counted
from trainables.spec.events import Event
from trainables.spec.knobs import needs_ranks
from trainables.storage.run_folder import trial_at
from trainables.tasks.registry import task_metrics
from trainables.workers.outcomes import LOADING_FACTOR, Failure, Interruption


class TuneTrial(tune.Trainable):  # type: ignore[misc]  # Ray carries no types
    """Runs the trial of `config["folder"]` on a host of the scheduler `config["admission"]`.

    The host reads the spec from the trial's folder. The first result holds `history`, the events
    up to the checkpoint that the trial resumes from. Each further result holds an `event`
    (Event.to_json), a `failure` (Failure) or `interrupted`: the sweep ends, and the trial has left
    its host with a checkpoint. `stopped` names the limit that ended the trial after this event.
    `units` is the time attribute; `objective` comes with the rungs at which a trial can be stopped
    and with the last result, which is `done`.

    `config["limits"]` holds `trial_seconds`, the most of the trial's own time, and
    `silent_seconds`, the time without a sign of life after which its host is killed; None is no
    limit. With `config["exclusive"]` the trial gets a whole device, else a share of the predicted
    size. A trial that outgrows its share runs once more with a whole device before it counts as
    infeasible.
    """

    _host: Any = None

    def setup(self, config: dict[str, Any]) -> None:
        self._open(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._close(discard=True)  # a trial without its last event was stopped
        self._open(new_config)
        return True

    def step(self) -> dict[str, Any]:
        while True:
            try:
                result = self._next()
            except host_gone() as error:
                result = self._lost(error)
            except HostUnresponsiveError as error:
                result = self._ended_silent_host(error)
            if result is not None:
                return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: hosts write the trial's checkpoints to its folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as `save_checkpoint`."""

    def leave(self) -> None:
        """Frees the host of a trial that was stopped; nothing of the trial is saved."""
        self._close(discard=True)

    def cleanup(self) -> None:
        if not self._folder.done:
            self._folder.pull()
        self._close(discard=self._folder.done)

    def _open(self, config: dict[str, Any]) -> None:
        self._config = config
        self._trial_id = config["trial_id"]
        self._folder = trial_at(config["folder"])
        if not self._folder.spec_file.exists():  # written on another machine than this one
            self._folder.pull()
        self._host_scheduler = ray.get_actor(config["host_scheduler"])
        metrics = task_metrics(config["task"], config["data"])
        self._objective = objectives(metrics)[config["objective"]]
        self._limits = config["limits"]
        self._host = None
        self._losses = RetryBudget()
        self._outgrew_its_share = False
        self._units = self._step = 0
        self._judged: dict[str, float] = {}

    def _next(self) -> dict[str, Any] | None:
        """Returns the trial's next result, or None if it has to be asked for on another host."""
        if self._host is None:
            started = self._start()
            if not isinstance(started, list):
                return self._instead_of_an_event(started)
            return {
                "history": [past.to_json() for past in started],
                "units": started[-1].units if started else 0,
                "done": False,
            }
        silent = self._limits["silent_seconds"]
        event = wait_for(self._host.next.remote(), self._folder, silent_seconds=silent)
        if not isinstance(event, Event):
            return self._instead_of_an_event(event)
        return self._result(event)

    def _start(self) -> list[Event] | Failure | Interruption:
        config = self._config
        call = self._host_scheduler.acquire.remote(self._trial_id, config["base_key"], self._need())
        self._host = ray.get(call)
        if self._host is None:
            return Interruption()
        silent = self._limits["silent_seconds"]
        allowed = None if silent is None else silent * LOADING_FACTOR
        call = self._host.start.remote(config["folder"], silent)
        try:  # the end of the sweep is not delayed: the host may be loading for long
            started: list[Event] | Failure | Interruption = wait_for(
                call, self._folder, silent_seconds=allowed, give_up=self._sweep_ends
            )
        except CancelledWaitError:
            return Interruption()
        return started

    def _need(self) -> ResourceRequest:
        if self._outgrew_its_share:
            return ResourceRequest()
        knobs = self._folder.spec().knobs
        return ResourceRequest.of(
            self._folder.estimate(),
            exclusive=self._config.get("exclusive", False),
            workers=int(knobs.get("workers", 1)) if needs_ranks(knobs) else 0,
        )

    def _sweep_ends(self) -> bool:
        ends: bool = ray.get(self._host_scheduler.is_ending.remote())
        return ends

    def _result(self, event: Event) -> dict[str, Any]:
        self._units, self._step = event.units, event.step
        self._losses.reached(event.step)
        stopped = self._over_its_time(event)
        done = event.kind == "finished" or stopped is not None
        if done:
            self._close(discard=stopped is not None)
        result = {"event": event.to_json(), "units": event.units, "done": done}
        if stopped is not None:
            result["stopped"] = stopped
        if event.kind == "rung":
            self._judged = {"objective": self._objective(event.metrics)}
        if event.kind == "finished" or (event.kind == "rung" and event.fraction < 1):
            result |= self._judged
        return result

    def _over_its_time(self, event: Event) -> str | None:
        """Returns the limit that ends the trial now, or None; a spent budget is always finished."""
        limit = self._limits["trial_seconds"]
        if limit is None or event.seconds < limit or event.fraction >= 1:
            return None
        at = f"step {event.step} ({event.fraction:.0%} of its budget)"
        hours = counted(limit / 3600, "hour was", "hours were")
        return f"limits.trial_hours: its {hours} used up at {at}"

    def _instead_of_an_event(self, told: Failure | Interruption) -> dict[str, Any] | None:
        if isinstance(told, Failure) and told.taken_over and self._losses.may_go_on:
            self._losses.add(step=self._step)  # by a host of a dead sweep, or one without its lease
            self._close()
            return None
        if isinstance(told, Failure) and told.share_bytes and not self._outgrew_its_share:
            self._outgrew_its_share = True  # it may still fit a device of its own
            self._close()
            return None
        if isinstance(told, Failure):
            return self._failure(told)
        host, self._host = self._host, None
        if not self._sweep_ends():  # its node is being removed: elsewhere, from the checkpoint
            ray.get(self._host_scheduler.replace.remote(self._trial_id))
            return None
        if host is not None:
            ray.get(self._host_scheduler.release.remote(self._trial_id))
        return {"interrupted": True, "units": self._units, "done": True}

    def _lost(self, error: Exception) -> dict[str, Any] | None:
        """Returns the result for a dead host, or None if the trial may run on another one.

        The loss of a preempted node does not count. A host that Ray killed because its node ran
        out of memory is not retried, as it would be killed again.
        """
        self._host = None
        ray.get(self._host_scheduler.replace.remote(self._trial_id))
        if isinstance(error, OutOfMemoryError):
            return self._failure(Failure("its node ran out of memory", infeasible=True))
        if not (isinstance(error, RayActorError) and error.preempted):
            self._losses.add(step=self._step)
        if not self._losses.is_hopeless:
            return None
        times = counted(self._losses.count, "time")
        why = f"its host died {times}, and it got no further between them"
        return self._failure(Failure(f"{why} ({type(error).__name__})"))

    def _ended_silent_host(self, error: HostUnresponsiveError) -> dict[str, Any]:
        self._host = None
        ray.get(self._host_scheduler.replace.remote(self._trial_id))  # kills it
        last = f"its last step was {self._step}" if self._step else "it had done no step"
        silent = counted(error.seconds / 60, "minute")
        return self._failure(
            Failure(
                f"no sign of life for {silent}, {last}: its host was "
                "killed (limits.silent_minutes). Its worker.log ends with where it hung."
            )
        )

    def _failure(self, failure: Failure) -> dict[str, Any]:
        self._close()
        told = asdict(failure)
        return {"failure": told, "units": self._units, "done": True}

    def _close(self, *, discard: bool = False) -> None:
        host, self._host = self._host, None
        if host is None:
            return
        silent = self._limits["silent_seconds"]
        call = host.close.remote(discard=discard)
        gone: tuple[type[Exception], ...] = (*host_gone(), HostUnresponsiveError)
        try:
            held_bytes = wait_for(call, self._folder, silent_seconds=silent)
        except gone:
            ray.get(self._host_scheduler.replace.remote(self._trial_id))
        else:
            ray.get(self._host_scheduler.release.remote(self._trial_id, held_bytes))


LOSSES_ALLOWED = 2  # of hosts, without progress between them


@dataclass
class RetryBudget:
    """Counts the hosts that a trial has lost without getting past the step of the last loss."""

    count: int = 0
    _step: int = 0  # the last that it has reached

    def add(self, *, step: int) -> None:
        """Counts the loss of the host after this optimizer step."""
        self.count += 1
        self._step = max(self._step, step)

    def reached(self, step: int) -> None:
        """Takes note that this optimizer step is done; a repeated step is no progress."""
        if step > self._step:
            self.count = 0

    @property
    def is_hopeless(self) -> bool:
        """Whether more hosts were lost than are allowed."""
        return self.count > LOSSES_ALLOWED

    @property
    def may_go_on(self) -> bool:
        """Whether one more loss is allowed."""
        return self.count < LOSSES_ALLOWED
