"""Trials small enough for a test: generated data, a tiny base, a few steps."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.data.batches import collate
from trainables.data.trial_data import load_data
from trainables.evaluation.evaluate import Evaluation, evaluate
from trainables.models.base import Base, load_base
from trainables.models.model_folder import model_digest
from trainables.resources.memory_peak import PeakMemory
from trainables.spec.events import Event
from trainables.spec.knobs import canonical
from trainables.spec.trial_spec import Budget, Execution, TrialSpec
from trainables.storage.trial_folder import TrialFolder
from trainables.tasks.identity import task_identity
from trainables.tasks.registry import make_task
from trainables.training.engine import Engine
from trainables.training.loop import train
from trainables.training.trial import TrialContext
from trainables.workers.host import HostProcess

torch.set_num_threads(1)

GENERATED = {
    "kinds": ["latest", "prior", "change", "rose"],
    "train": 24,
    "selection": 8,
    "report": 4,
    "seed": 5,
}
TASK_OPTIONS = {"generated": GENERATED}
BUDGET = Budget(train_examples=16, eval_examples=3, rungs=(0.25, 0.5, 1.0))
EXECUTION = Execution(eval_batch_size=4, max_new_tokens=4, progress_seconds=0.0)
KNOBS = {
    "compute_dtype": "float32",
    "prompt": "statements",
    "rank": 4,
    "alpha": 8.0,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "sequence_length": 256,
}


def make_spec(
    model: Path,
    *,
    budget: Budget = BUDGET,
    execution: Execution = EXECUTION,
    generated: dict[str, Any] | None = None,
    **knobs: Any,
) -> TrialSpec:
    """A spec on `model` with the values of KNOBS, overridden by `knobs`."""
    given = {**KNOBS, "model": str(model), **knobs}
    options = {"generated": {**GENERATED, **(generated or {})}}
    knobs = canonical(given)
    asked = {name: knobs[name] for name in ("prompt", "target")}
    return TrialSpec(
        role="baseline" if given.get("method") == "untrained" else "trial",
        knobs=knobs,
        model_source=str(model),
        model_digest=_digest(str(model)),
        task="finqa",
        task_identity=_identity(json.dumps({**options, **asked})),
        task_options=options,
        budget=budget,
        execution=execution,
    )


def make_trial(spec: TrialSpec, folder: Path, *, base: Base | None = None) -> TrialContext:
    """A trial in `folder`, on the base that tests share unless `base` is given."""
    borrowed = base or shared_base(spec)
    place = TrialFolder(folder / spec.trial_id)
    place.write_spec(spec, suggestion={})
    return TrialContext(
        spec=spec, base=borrowed, folder=place, data=load_data(spec, borrowed, _DATA)
    )


def run(spec: TrialSpec, folder: Path, *, base: Base | None = None) -> list[Event]:
    """Runs the trial to its end and returns all its events."""
    return list(train(make_trial(spec, folder, base=base)))


def shared_base(spec: TrialSpec) -> Base:
    """The base of a spec, loaded once for all tests."""
    if spec.base_key not in _BASES:
        _BASES[spec.base_key] = load_base(spec, device="cpu")
    return _BASES[spec.base_key]


@functools.cache
def _digest(model: str) -> str:
    return model_digest(model)


@functools.cache
def _identity(options: str) -> dict[str, Any]:
    return task_identity(make_task("finqa", json.loads(options)))


_BASES: dict[str, Base] = {}
_DATA: dict[Any, Any] = {}


def finish_host(host: HostProcess) -> list[Event]:
    """Runs a host's trial until it has finished and returns its events."""
    events: list[Event] = []
    while not events or events[-1].kind != "finished":
        event = host.next()
        assert isinstance(event, Event), event
        events.append(event)
    return events


def assert_same_curve(events: Sequence[Event], expected: Sequence[Event]) -> None:
    """Asserts equal events, to 1e-6, except metrics that depend on the clock or the process."""
    measured = {"examples_per_second", "process_peak_memory_bytes", "train_peak_memory_bytes",
                "device_seconds"}  # fmt: skip
    assert [(e.kind, e.step, e.units) for e in events] == [
        (e.kind, e.step, e.units) for e in expected
    ]
    for event, other in zip(events, expected, strict=True):
        assert event.metrics.keys() == other.metrics.keys()
        for name in set(event.metrics) - measured:
            assert event.metrics[name] == pytest.approx(other.metrics[name], rel=1e-6), name


def evaluate_selection(model: Any, trial: TrialContext) -> Evaluation:
    """Evaluates the model on the trial's whole selection split."""
    return evaluate(
        model,
        trial.base,
        task=trial.data.task,
        encoded=trial.data.split("selection"),
        execution=trial.spec.execution,
        peak=PeakMemory(model, trial.base.device),
    )


def gradients(engine: Engine, trial: TrialContext) -> torch.Tensor:
    """The gradients of one batch of the trial's training data, as one vector; clears them."""
    engine.model.train()
    batch = collate(trial.data.split("train"), [0, 1, 2], pad_token=trial.base.pad_token)
    engine.accumulate(batch, completion_tokens=10)
    found = [p.grad.flatten().float() for p in engine.parameters.values() if p.grad is not None]
    engine.optimizer.zero_grad(set_to_none=True)
    return torch.cat(found)
