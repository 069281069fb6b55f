"""The times of a contender's run, measured in its workers by one rule for all contenders.

A trial's first step is the time at which its first optimizer step ended. Its end is the time at
which its adapter and its result are written and only the report to Tune is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SHARES = ("import", "load", "train", "eval")


@dataclass(frozen=True)
class TrialTimes:
    """One trial; times in Unix seconds, `seconds` by SHARES.

    `first_step` is None for a trial that is evaluated without training.
    """

    began: float
    first_step: float | None
    end: float
    seconds: dict[str, float]
    counts: dict[str, float] = field(default_factory=dict)  # steps, tokens, questions, threads
    metrics: dict[str, float] = field(default_factory=dict)
    rank: int = 0
    learning_rate: float = 0.0


@dataclass(frozen=True)
class RunTimes:
    """One run of a contender; `started` and `ended` are those of its process, in Unix seconds."""

    started: float
    ray_ready: float
    ended: float
    trials: list[TrialTimes]
    slots: int

    @property
    def trained(self) -> list[TrialTimes]:
        return [trial for trial in self.trials if trial.first_step is not None]

    @property
    def makespan(self) -> float:
        """Seconds from Ray's readiness to the last trained trial's end."""
        return max(trial.end for trial in self.trained) - self.ray_ready

    @property
    def start_up(self) -> float:
        return self.ray_ready - self.started

    @property
    def wall(self) -> float:
        """Seconds of the whole program, from its start to its exit."""
        return self.ended - self.started

    def gaps(self) -> list[float]:
        """Seconds from one trial's end to the next one's first optimizer step on the same slot.

        The next trial to start takes the slot that became free, so the n-th trial to start follows
        the (n - slots)-th to end.
        """
        begun = sorted(self.trials, key=lambda trial: trial.began)
        ends = sorted(trial.end for trial in self.trials)
        followed = zip(begun[self.slots :], ends, strict=False)
        return [trial.first_step - end for trial, end in followed if trial.first_step is not None]

    def shares(self) -> dict[str, float]:
        """Shares of the slots' time in the makespan, by SHARES; "rest" is the remainder."""
        whole = self.makespan * self.slots
        parts = {
            name: sum(trial.seconds.get(name, 0.0) for trial in self.trials) / whole
            for name in SHARES
        }
        return {**parts, "rest": 1 - sum(parts.values())}
