"""KNOBS: every hyperparameter of a trial that a space may vary, one row each.

`canonical` drops the knobs that a trial's method, quantization or other values do not read, so
that two configurations that train the same thing are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainables.errors import did_you_mean
from trainables.methods.method import Method
from trainables.methods.registry import METHODS, UNTRAINED
from trainables.methods.target_modules import ALL_LINEAR
from trainables.spec.checks import above, at_least, boolean, name_in, one_of, whole, within
from trainables.spec.knob import Knob
from trainables.spec.knob_values import (
    AUTO,
    are_modules,
    as_batch_size,
    as_modules,
    batch_at_least,
    batch_label,
    batch_size,
    dtype_label,
    is_auto,
    modules,
    modules_at_least,
    modules_label,
    smallest_batch,
    text,
    zero_stage,
)
from trainables.spec.memory_effect import DOWN, NONE, UP, MemoryEffect
from trainables.spec.memory_effect import above as memory_above
from trainables.spec.quantization import QUANTIZATIONS, quantization_of
from trainables.spec.rows.decoding_knobs import DECODING_ROWS
from trainables.spec.rows.shot_knobs import SHOT_ROWS
from trainables.spec.rows.task_knobs import TASK_KNOBS

OPTIMIZERS = ("adamw", "paged_adamw_8bit", "sgd")
SCHEDULES = ("constant", "linear", "cosine")
COMPUTE_DTYPES = ("auto", "float32", "bfloat16", "float16")
NO_OFFLOAD = "none"
OFFLOADS = (NO_OFFLOAD, "cpu")  # where the optimizer's states are kept
REDUCE_BUCKET = 50_000_000  # numbers that ZeRO sends at once; DeepSpeed's default takes 2 GB


def step_examples(knobs: Mapping[str, Any]) -> int:
    """The examples of one optimizer step, all workers together, for canonical knobs of a trial
    that is trained."""
    if knobs["batch_size"] == AUTO:
        return int(knobs["effective_batch_size"])
    of_one = int(knobs["batch_size"]) * int(knobs["gradient_accumulation"])
    return of_one * int(knobs.get("workers", 1))


def needs_ranks(knobs: Mapping[str, Any]) -> bool:
    """Whether the trial runs in a process group (`trainables.workers.distributed_trial`) and not
    on a host alone.

    One worker with a ZeRO stage does too: it has nothing to shard, but it can offload.
    """
    return int(knobs.get("workers", 1)) > 1 or int(knobs.get("zero_stage", 0)) > 0


def check(name: str, value: Any) -> str | None:
    """What is wrong with `value` for knob `name`, or None; an unknown name is wrong."""
    if name not in KNOBS:
        return f"unknown key.{did_you_mean(name, KNOBS)}"
    return KNOBS[name].check(value)


def is_one_value(name: str, values: Sequence[Any]) -> bool:
    """Whether a list for knob `name` is one value of it, and not several."""
    return name in KNOBS and KNOBS[name].is_one_value(values)


def canonical(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with defaults filled in and unread knobs dropped, in KNOBS' order.

    Expects values that `check` accepts.
    """
    given = {
        name: knob.convert(configuration.get(name, knob.default)) for name, knob in KNOBS.items()
    }
    return {name: value for name, value in given.items() if KNOBS[name].is_written(given, value)}


def with_unsaid(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Canonical knobs, and the unsaid ones that every trial of its method reads, with their
    defaults; those of tasks are for their tasks to read."""
    given = {**defaults(), **knobs}
    rows = {name: row for name, row in KNOBS.items() if row.unsaid and not row.of_task}
    unsaid = {name: row.default for name, row in rows.items() if row.read_by(given)}
    return {**unsaid, **knobs}


def untrained_knobs(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical knobs of the baseline that evaluates the same base with the same prompt."""
    return canonical({**configuration, "method": UNTRAINED})


def defaults() -> dict[str, Any]:
    """The default of every knob, in KNOBS' order."""
    return {name: knob.default for name, knob in KNOBS.items()}


def baseline_knobs() -> list[str]:
    """The knobs that an untrained baseline reads, under some quantization."""
    given = [
        defaults() | {"method": UNTRAINED, "quantization": quantization}
        for quantization in QUANTIZATIONS
    ]
    return [name for name, knob in KNOBS.items() if any(map(knob.read_by, given))]


def base_knobs() -> list[str]:
    """The knobs in which trials must agree to share a loaded base, besides the model itself."""
    return [name for name, knob in KNOBS.items() if knob.loads_base]


def task_knobs() -> list[str]:
    """The knobs that are options of tasks; a task reads those in its `Task.knobs`."""
    return [name for name, knob in KNOBS.items() if knob.of_task]


def task_values(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """What canonical knobs say to the task."""
    return {name: knobs[name] for name in task_knobs() if name in knobs}


def simulated_values(knobs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each knob that a simulated step depends on besides its batches, and what of its value."""
    for name, knob in KNOBS.items():
        if knob.simulated is not None and not knob.memory.is_none:
            yield name, knob.simulated(knobs.get(name))


def method_of(knobs: Mapping[str, Any]) -> type[Method] | None:
    """The method that knobs name, the default one if they name none; None if it is not known."""
    return METHODS.get(str(knobs.get("method", KNOBS["method"].default)))


def _always(configuration: Mapping[str, Any]) -> bool:
    del configuration
    return True


def _trained(configuration: Mapping[str, Any]) -> bool:
    return METHODS[configuration["method"]].trains


def _explicit_batch(configuration: Mapping[str, Any]) -> bool:
    return _trained(configuration) and configuration.get("batch_size") != AUTO


def _automatic_batch(configuration: Mapping[str, Any]) -> bool:
    return _trained(configuration) and configuration.get("batch_size") == AUTO


def _field_of(field: str) -> Callable[[Mapping[str, Any]], bool]:
    def read_by(configuration: Mapping[str, Any]) -> bool:
        return field in METHODS[configuration["method"]].hyperparameters()

    return read_by


def _double(configuration: Mapping[str, Any]) -> bool:
    return quantization_of(configuration).has_double_quantization


KNOBS: dict[str, Knob] = {
    "model": Knob(None, text, str, _always, simulated=None, varied_label=None),
    "quantization": Knob(
        "none", name_in(QUANTIZATIONS), str, _always, loads_base=True, varied_label=None
    ),
    "double_quantization": Knob(False, boolean, bool, _double, loads_base=True, varied_label=None),
    "compute_dtype": Knob(
        "auto",
        one_of(*COMPUTE_DTYPES),
        str,
        _always,
        loads_base=True,
        varied_label=dtype_label,
    ),
    "method": Knob("lora", name_in(METHODS), str, _always, varied_label=None),
    "rank": Knob(8, whole(1), int, _field_of("rank"), memory=UP, label="r{rank}", plan_place=0),
    "alpha": Knob(
        16,
        above(0),
        float,
        _field_of("alpha"),
        memory=NONE,
        affects_speed=False,
        label="a{alpha:g}",
    ),
    "dropout": Knob(
        0.0,
        within(0, 0.99),
        float,
        _field_of("dropout"),
        memory=memory_above(0),  # its masks are kept for the backward pass
        simulated=bool,
        activations=lambda value: 1.1 if value else 1.0,
        varied_label="drop{dropout:.2g}",
    ),
    "target_modules": Knob(
        ALL_LINEAR,
        modules,
        as_modules,
        _field_of("target_modules"),
        is_one_value=are_modules,
        memory=MemoryEffect(modules_at_least),
        varied_label=modules_label,
    ),
    "workers": Knob(
        1,
        whole(1),
        int,
        _trained,
        unsaid=True,
        simulated=None,
        label="w{workers}",
        method_place=1,
    ),
    "zero_stage": Knob(
        0,
        zero_stage,
        int,
        _trained,
        unsaid=True,
        simulated=None,
        label="z{zero_stage}",
        method_place=0,
    ),
    "offload": Knob(NO_OFFLOAD, one_of(*OFFLOADS), str, _trained, unsaid=True, simulated=None),
    "learning_rate": Knob(
        2e-4,
        above(0),
        float,
        _trained,
        memory=NONE,
        affects_speed=False,
        label="lr{learning_rate:.1e}",
    ),
    "batch_size": Knob(
        8,
        batch_size,
        as_batch_size,
        _trained,
        switches=is_auto,
        memory=MemoryEffect(batch_at_least),
        simulated=None,
        activations=smallest_batch,
        label=batch_label,
        plan_place=1,
    ),
    "gradient_accumulation": Knob(
        1,
        whole(1),
        int,
        _explicit_batch,
        memory=memory_above(1),  # gradients are kept while the next micro-batch runs
        simulated=None,
        varied_label=None,
        plan_place=2,
    ),
    "effective_batch_size": Knob(
        16,
        whole(1),
        int,
        _automatic_batch,
        memory=memory_above(1),
        simulated=None,
        varied_label=None,
        plan_place=3,
    ),
    "optimizer": Knob(
        "adamw",
        one_of(*OPTIMIZERS),
        str,
        _trained,
        states=lambda value: {"adamw": 4, "sgd": 2}.get(value, 3),
        plan_place=6,
    ),
    "schedule": Knob("linear", one_of(*SCHEDULES), str, _trained, memory=NONE, affects_speed=False),
    "warmup": Knob(0.03, within(0, 1), float, _trained, memory=NONE, affects_speed=False),
    "weight_decay": Knob(
        0.0,
        at_least(0),
        float,
        _trained,
        memory=NONE,
        affects_speed=False,
        varied_label="wd{weight_decay:.2g}",
    ),
    "max_gradient_norm": Knob(
        1.0,
        above(0),
        float,
        _trained,
        memory=NONE,
        affects_speed=False,
        varied_label="clip{max_gradient_norm:.2g}",
    ),
    "gradient_checkpointing": Knob(
        False,
        boolean,
        bool,
        _trained,
        memory=DOWN,
        activations=lambda value: 0.15 if value else 1.0,
        varied_label="ckpt",
        plan_place=5,
    ),
    "sequence_length": Knob(
        1024,
        whole(16),
        int,
        _always,
        memory=UP,
        simulated=None,
        activations=int,
        varied_label="len{sequence_length}",
        plan_place=4,
    ),
    **TASK_KNOBS,
    **SHOT_ROWS,
    **DECODING_ROWS,
    "seed": Knob(0, whole(0), int, _trained, memory=NONE, affects_speed=False),
}
