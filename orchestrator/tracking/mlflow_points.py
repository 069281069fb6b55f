"""StoredRun: the points that an MLflow run holds, so that none is written twice."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from trainables.spec.events import Event

SYSTEM = "system/"  # prefix of the metrics that MLflow shows under "System metrics"


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    name: str
    step: int  # units
    value: float
    time: int  # milliseconds since the epoch


@dataclass
class StoredRun:
    """One run and the points that it holds.

    `take` and `take_final` return the points of a trial that it lacks and count them as stored.
    Points of a run that was found there are known only after `remember`; `metrics` has their names.
    """

    run_id: str
    started: int  # milliseconds since the epoch
    tags: dict[str, str]
    params: Collection[str] = ()  # names
    metrics: Collection[str] = ()  # names
    status: str = "RUNNING"
    values: dict[str, dict[int, float]] = field(default_factory=dict)  # name -> step -> value
    last_step: int = 0
    last_time: int = 0
    held: dict[str, float] = field(default_factory=dict)  # by `take`, for `take_final`

    def take(self, events: Sequence[Event]) -> list[Point]:
        """The points of these events that the run lacks; those of the last rung are held back."""
        points = []
        for event in events:
            self.last_step = max(self.last_step, event.units)
            self.last_time = max(self.last_time, self.started + milliseconds(event.seconds))
            if event.kind == "finished" or (event.kind == "rung" and event.fraction >= 1):
                self.held.update(event.metrics)
            else:
                points += self._new(event.metrics, event.units, event.seconds)
            points += self._new(_system(event), event.units, event.seconds)
        return points

    def take_final(self, metrics: Mapping[str, float]) -> list[Point]:
        """The held and the given metrics as points at the last step. A given value that equals the
        latest one adds no point."""
        changed = {name: value for name, value in metrics.items() if value != self._latest(name)}
        seconds = (self.last_time - self.started) / 1000
        return self._new({**self.held, **changed}, self.last_step, seconds)

    def remember(self, point: Point) -> None:
        self.values.setdefault(point.name, {})[point.step] = point.value
        self.last_step = max(self.last_step, point.step)
        self.last_time = max(self.last_time, point.time)

    def _new(self, metrics: Mapping[str, float], step: int, seconds: float) -> list[Point]:
        when = self.started + milliseconds(seconds)
        points = [
            Point(name, step, float(value), when)
            for name, value in metrics.items()
            if step not in self.values.get(name, {}) and value is not None and math.isfinite(value)
        ]
        for point in points:
            self.remember(point)
        return points

    def _latest(self, name: str) -> float | None:
        steps = self.values.get(name)
        return steps[max(steps)] if steps else None


def _system(event: Event) -> dict[str, float]:
    return {f"{SYSTEM}{name}": value for name, value in event.system.items()}


def milliseconds(seconds: float) -> int:
    """MLflow's unit of time."""
    return round(seconds * 1000)
