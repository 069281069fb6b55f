"""Planner: from a configuration to a trial's spec, or to the reason why it can't run.

Resolves paths and digests contents, once per model and task, so that a trial's id depends on the
content of its model and data and not on their paths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchestrator.config.sections import SweepConfig, rungs
from orchestrator.planning.forecast import Forecast
from orchestrator.planning.forecaster import Forecaster
from orchestrator.planning.model_config import model_config
from orchestrator.planning.sources import (
    ModelSource,
    find_model,
    is_hub_id,
)
from orchestrator.runs.ledger import TrialRecord
from orchestrator.runs.state import MODEL
from orchestrator.shipped_files import resolve_data_paths, resolve_path
from orchestrator.space.constraints import surviving
from orchestrator.space.enumeration import values_of
from orchestrator.space.tree import Constant, Question, Range, Space, questions
from trainables.errors import InputError
from trainables.hub_data import HubData
from trainables.methods.registry import UNTRAINED
from trainables.spec.constraints import violations
from trainables.spec.knobs import KNOBS, baseline_knobs, canonical, task_values
from trainables.spec.quantization import stored_fault
from trainables.spec.states import BASELINE, TRIAL
from trainables.spec.trial_spec import Budget, Execution, TrialSpec
from trainables.tasks.identity import task_identity
from trainables.tasks.registry import DROP, drops_too_long, find_task, make_task
from trainables.tasks.task import TOO_LONG


@dataclass(frozen=True)
class PlannedTask:
    """The task with one choice of its knobs: its identity, and the options that a worker makes it
    with."""

    prompt: str
    identity: dict[str, Any]
    options: dict[str, Any]
    max_new_tokens: int
    hub_data: HubData | None = None


@dataclass
class Planner:
    """Builds the specs of one sweep on one kind of device.

    `device` is a host's, as `models.describe_device` returns it. `prepare` fills in `models` and
    the task's digests, and raises InputError with all that is wrong with them.
    """

    config: SweepConfig
    models: dict[str, ModelSource] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    forecaster: Forecaster | None = None  # None: no trial is refused for its memory
    needs_weights: bool = True
    _tasks: dict[str, PlannedTask] = field(default_factory=dict)

    def prepare(
        self, *, ask_the_hub: bool = True, revisions: Mapping[str, str] | None = None
    ) -> None:
        """Checks every model and every variant of the task that the space names.

        `revisions`: those of hub models that are resolved already. Without `ask_the_hub`, for a
        plan alone, a model that is not a local folder is not checked, and a folder may be without
        weights.
        """
        self.needs_weights = ask_the_hub
        for name, revision in (revisions or {}).items():
            self.models[name] = ModelSource(name, f"{name}@{revision}", revision)
        problems = _misplaced(self.config)
        saved: dict[str, list[str | None]] = {}
        for configuration in self.cell_configurations():
            knobs = self._completed(configuration)
            if not ask_the_hub and is_hub_id(knobs["model"]):
                name = knobs["model"]
                self.models.setdefault(name, ModelSource(name, f"{name}@unknown"))
            for check in (self._model, self._task):
                try:
                    check(knobs)
                except InputError as error:
                    problems += error.messages
            if (source := self.models.get(knobs["model"])) is not None:
                ask = ask_the_hub and knobs["model"] not in (revisions or {})
                config = model_config(source.location, source.revision, ask_the_hub=ask)
                saved.setdefault(knobs["model"], []).append(stored_fault(config or {}, knobs))
        problems += _never_loaded(saved)
        if problems:
            raise InputError(problems)

    def contents(self) -> dict[str, str]:
        """The digests of models, data and prompts, by name; call `prepare` first."""
        digests = {f"{MODEL}{name}": source.digest for name, source in self.models.items()}
        for task in self._tasks.values():
            digests[f"prompt {task.prompt}"] = task.identity["prompt"]
            digests |= {f"data {split}": found for split, found in task.identity["data"].items()}
        return digests

    def hub_data(self) -> tuple[HubData, ...]:
        """What the task loads from a hub; call `prepare` first."""
        found = (task.hub_data for task in self._tasks.values())
        return tuple(dict.fromkeys(data for data in found if data is not None))

    def spec(self, configuration: Mapping[str, Any]) -> TrialSpec:
        """The trial of a configuration; equal configurations give equal ids."""
        given = self.config.budget
        budget = Budget(
            given.train_examples, given.eval_examples, rungs(self.config.scheduler), given.seed
        )
        return self._build(self._completed(configuration), TRIAL, budget)

    def baseline(self, configuration: Mapping[str, Any]) -> TrialSpec:
        """The untrained base with the same prompt, and the longest sequence_length of the space."""
        return self._build(
            self.baseline_knobs(configuration),
            BASELINE,
            Budget(0, self.config.budget.eval_examples, (1.0,)),
        )

    def baseline_knobs(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        longest = {"sequence_length": longest_sequence(self.config.space)}
        return self._completed({**configuration, **longest, "method": UNTRAINED})

    def cell_configurations(self) -> Iterator[Mapping[str, Any]]:
        """One configuration that is not excluded for each base and prompt of the space."""
        names = [name for name in baseline_knobs() if name != "sequence_length"]
        yield from surviving(self.config.space, self.config.exclude, names)

    def task_options(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the task that this configuration is trained on."""
        return self._task(self._completed(configuration)).options

    def rejection(self, spec: TrialSpec) -> str | None:
        """Why this trial can't run on this device, or None; blocks until its forecast is made."""
        forecast = self.forecast(spec)
        return self._kind_rejection(spec) or (forecast.refusal if forecast else None)

    def known_rejection(self, spec: TrialSpec) -> str | None:
        """As `rejection`, without a forecast that is not made yet; never blocks."""
        forecast = self.forecaster.known(spec) if self.forecaster else None
        return self._kind_rejection(spec) or (forecast.refusal if forecast else None)

    def is_ready(self, spec: TrialSpec) -> bool:
        """Whether `rejection` would not block; requests the forecast if it is missing."""
        if self.forecaster is None or self._kind_rejection(spec) is not None:
            return True
        return self.forecaster.is_ready(spec)

    def forecast(self, spec: TrialSpec) -> Forecast | None:
        """The trial's forecast; None if there is none, or if this kind of device can't run it."""
        if self.forecaster is None or self._kind_rejection(spec) is not None:
            return None
        return self.forecaster.of(spec)

    def learn(self, record: TrialRecord) -> bool:
        """Calibrates later forecasts by a finished trial; returns whether any changes."""
        return self.forecaster is not None and self.forecaster.learn(record)

    def _kind_rejection(self, spec: TrialSpec) -> str | None:
        """Why no device of this kind, of any size, can run the trial, or None."""
        reason = violations(spec.knobs)
        config = model_config(spec.model_source, spec.revision, ask_the_hub=False) or {}
        reason = reason or stored_fault(config, spec.knobs)
        if reason is not None:
            return reason
        if (
            spec.knobs.get("optimizer") == "paged_adamw_8bit"
            and self.device["device_type"] != "cuda"
        ):
            return "optimizer paged_adamw_8bit needs a GPU and this device is a CPU. Use adamw."
        dtype = spec.knobs["compute_dtype"]
        if (
            dtype == "bfloat16"
            and self.device["device_type"] == "cuda"
            and not self.device["bfloat16"]
        ):
            return f"{self.device['device']} has no bfloat16. Use compute_dtype: auto."
        return None

    def _completed(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Canonical knobs; the seed is the budget's, prompt and target are the task's."""
        task = find_task(self.config.task)
        default = {"seed": self.config.budget.seed, "target": task.targets[0]}
        knobs = canonical({**default, **configuration})
        return {**knobs, "prompt": task.canonical_prompt(knobs["prompt"], knobs["target"])}

    def _build(self, knobs: dict[str, Any], role: Any, budget: Budget) -> TrialSpec:
        model = self._model(knobs)
        task = self._task(knobs)
        knobs["compute_dtype"] = self._compute_dtype(knobs["compute_dtype"])
        execution = self.config.execution
        return TrialSpec(
            role=role,
            knobs=knobs,
            model_digest=model.digest,
            task=self.config.task,
            task_identity=task.identity,
            task_options=task.options,
            budget=budget,
            model_source=model.location,
            revision=model.revision,
            execution=Execution(
                eval_batch_size=execution.eval_batch_size,
                max_new_tokens=execution.max_new_tokens or task.max_new_tokens,
                checkpoint_seconds=60.0 * execution.checkpoint_minutes,
                allow_bin_weights=execution.allow_bin_weights,
            ),
        )

    def _compute_dtype(self, wanted: str) -> str:
        """As `models.resolve_compute_dtype`: bfloat16 if the GPU supports it, float16 on older."""
        return str(self.device["compute_dtype"]) if wanted == "auto" else wanted

    def _model(self, knobs: Mapping[str, Any]) -> ModelSource:
        name = knobs["model"]
        if name not in self.models:
            allow_bin = self.config.execution.allow_bin_weights
            self.models[name] = find_model(
                name, allow_bin=allow_bin, needs_weights=self.needs_weights
            )
        return self.models[name]

    def _task(self, knobs: Mapping[str, Any]) -> PlannedTask:
        values = task_values(knobs)
        key = json.dumps(values, sort_keys=True)
        if key not in self._tasks:
            own = {**values, "prompt": resolve_path(values["prompt"])}
            options = {**self._data, **own}
            task = make_task(self.config.task, options)
            identity = task_identity(task)
            task.prepare()
            if drops_too_long(options):
                identity[TOO_LONG] = DROP
            self._tasks[key] = PlannedTask(
                values["prompt"], identity, options, task.max_new_tokens, task.hub_data
            )
        return self._tasks[key]

    @cached_property
    def _data(self) -> dict[str, Any]:
        """The task's options, as workers get them."""
        return find_task(self.config.task).pinned(resolve_data_paths(self.config.data))


def longest_sequence(space: Space) -> int:
    """The largest sequence_length of the space."""
    varied = [question for question in questions(space) if question.knob == "sequence_length"]
    ends = [_largest(question) for question in varied]
    constant = dict(space.knobs).get("sequence_length")
    if isinstance(constant, Constant):
        ends.append(int(constant.value))
    return max(ends, default=int(KNOBS["sequence_length"].default))


def _largest(question: Question) -> int:
    if isinstance(question, Range):
        return int(question.high)
    return max(int(option.value) for option in question.options)


def _never_loaded(saved: Mapping[str, Sequence[str | None]]) -> list[str]:
    """Faults of the models of which the space has no row that they are saved as."""
    return [str(faults[0]) for faults in saved.values() if None not in faults]


def _misplaced(config: SweepConfig) -> list[str]:
    """Faults of knobs that stand among the task's options, where the space overwrites them."""
    return [
        f"data.{name}: it is a knob of the trials; write it in space, as space.{name}."
        for name in find_task(config.task).knobs
        if name in config.data
        and not (KNOBS[name].in_data and not any(values_of(config.space, name)))
    ]
