"""The choice of the engine that trains a model: the plain one, or DeepSpeed's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainables.models.base import Base
from trainables.training.engine import Engine
from trainables.training.optimizer import Knobs
from trainables.training.process_group import ProcessGroup

if TYPE_CHECKING:
    from trainables.training.deepspeed_engine import ShardedEngine


def make_engine(
    model: Any, base: Base, knobs: Knobs, *, total_steps: int, process_group: ProcessGroup
) -> Engine | ShardedEngine:
    """The engine that trains `model` as `knobs` say, together with the workers of the group.

    Raises ValueError if the trial's number of workers is not that of the group.
    """
    if int(knobs.get("workers", 1)) != process_group.size:
        raise ValueError(
            f"the trial has {knobs.get('workers', 1)} workers, the group {process_group.size}"
        )
    if knobs.get("zero_stage", 0):
        from trainables.training.deepspeed_engine import ShardedEngine

        return ShardedEngine(
            model, base, knobs, total_steps=total_steps, process_group=process_group
        )
    return Engine(model, base, knobs, total_steps=total_steps, process_group=process_group)
