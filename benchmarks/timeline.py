"""What a run of a contender took: moments taken in its workers, by one rule for all.

A trial's first step is the moment its first optimizer step was done, its end the moment its
adapter and its result are there and only the report of them is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SHARES = ("import", "load", "train", "eval")


@dataclass(frozen=True)
class TrialTimes:
    """One trial; moments in Unix seconds, `seconds` by SHARES. No first step: it only judged."""

    began: float
    first_step: float | None
    end: float
    seconds: dict[str, float]
    counts: dict[str, float] = field(default_factory=dict)  # what it did: steps, tokens, questions
    metrics: dict[str, float] = field(default_factory=dict)
    rank: int = 0
    learning_rate: float = 0.0


@dataclass(frozen=True)
class RunTimes:
    """One run of a contender; `started`: its process, `ray_ready`: Ray answered, `ended`: exit."""

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

        A slot that comes free is taken by the next trial to begin, so the n-th to begin follows
        the (n - slots)-th to end.
        """
        begun = sorted(self.trials, key=lambda trial: trial.began)
        ends = sorted(trial.end for trial in self.trials)
        followed = zip(begun[self.slots :], ends, strict=False)
        return [trial.first_step - end for trial, end in followed if trial.first_step is not None]

    def shares(self) -> dict[str, float]:
        """Parts of the slots' time in the makespan, by SHARES; "rest" is what is left."""
        whole = self.makespan * self.slots
        parts = {
            name: sum(trial.seconds.get(name, 0.0) for trial in self.trials) / whole
            for name in SHARES
        }
        return {**parts, "rest": 1 - sum(parts.values())}
