"""TrialProxy: the Tune trial. It imports no torch: a host computes, the proxy relays its events.

Tune sees an ordinary class Trainable whose `step` is the trial's next event, so that its
schedulers mean what their documentation says; with `reuse_actors` one proxy serves many trials.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError

from orchestrator.objective import OBJECTIVES
from trainables.host import Failure
from trainables.spec import Event

HOST_LOSSES_ALLOWED = 2


class TrialProxy(tune.Trainable):  # type: ignore[misc]  # Ray carries no types
    """Runs the trial of `config["folder"]` on a host that the actor `config["admission"]` gives it.

    The trial's folder is all it needs: the host reads the spec there. A result holds `event`
    (Event.to_json) or `failure` (reason, infeasible); the first one also `history`, the events of
    the checkpoint that the trial goes on from. `units` is the time attribute; `objective` comes
    with the rungs that a trial can be stopped at and with the last result, which is `done`.
    """

    _host: Any = None

    def setup(self, config: dict[str, Any]) -> None:
        self._open(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._close()
        self._open(new_config)
        return True

    def step(self) -> dict[str, Any]:
        while True:
            try:
                return self._next()
            except RayActorError as error:
                self._host = None
                self._losses += 1
                ray.get(self._admission.replace.remote(self._trial_id))
                if self._losses > HOST_LOSSES_ALLOWED:
                    reason = f"its host died {self._losses} times ({type(error).__name__})"
                    return self._failure(Failure(reason))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial's checkpoints lie in its folder, and hosts write them."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""

    def cleanup(self) -> None:
        self._close()

    def _open(self, config: dict[str, Any]) -> None:
        self._config = config
        self._trial_id = config["trial_id"]
        self._admission = ray.get_actor(config["admission"])
        self._objective = OBJECTIVES[config["objective"]]
        self._host = None
        self._losses = 0
        self._units = 0
        self._judged: dict[str, float] = {}

    def _next(self) -> dict[str, Any]:
        history: list[Event] = []
        if self._host is None:
            started = self._start()
            if isinstance(started, Failure):
                return self._failure(started)
            history = started
        event = ray.get(self._host.next.remote())
        if isinstance(event, Failure):
            return self._failure(event)
        result = self._result(event)
        if history:
            result["history"] = [past.to_json() for past in history]
        return result

    def _start(self) -> list[Event] | Failure:
        config = self._config
        self._host = ray.get(self._admission.acquire.remote(self._trial_id, config["base_key"]))
        history: list[Event] | Failure = ray.get(self._host.start.remote(config["folder"]))
        return history

    def _result(self, event: Event) -> dict[str, Any]:
        done = event.kind == "finished"
        if done:
            self._close()
        self._units = event.units
        result = {"event": event.to_json(), "units": event.units, "done": done}
        if event.kind == "rung":
            self._judged = {"objective": self._objective(event.metrics)}
        if done or (event.kind == "rung" and event.fraction < 1):
            result |= self._judged
        return result

    def _failure(self, failure: Failure) -> dict[str, Any]:
        self._close()
        told = {"reason": failure.reason, "infeasible": failure.infeasible}
        return {"failure": told, "units": self._units, "done": True}

    def _close(self) -> None:
        host, self._host = self._host, None
        if host is None:
            return
        try:
            ray.get(host.close.remote())
        except RayActorError:
            ray.get(self._admission.replace.remote(self._trial_id))
        ray.get(self._admission.release.remote(self._trial_id))
