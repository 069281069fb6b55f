"""KNOBS: every setting of a trial that a space may vary, what it accepts and its default.

A knob that the trial's method or quantization does not read is dropped by `canonical`, so two
configurations that train the same thing are the same configuration. LIGHT.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.errors import did_you_mean
from trainables.methods.registry import METHODS
from trainables.spec.checks import Check, above, at_least, boolean, one_of, whole, within
from trainables.spec.quantization import QUANTIZATIONS


@dataclass(frozen=True)
class Knob:
    """One setting: `check` says what is wrong with a value, `convert` makes it canonical.

    `unsaid`: its default is not written down, so that the configurations, and with them the ids,
    of trials from before there was such a knob stay what they were.
    """

    default: Any
    check: Check
    convert: Callable[[Any], Any]
    read_by: Callable[[Mapping[str, Any]], bool]
    unsaid: bool = False

    def is_written(self, given: Mapping[str, Any], value: Any) -> bool:
        """Whether a canonical configuration made of `given` holds it with this value."""
        return self.read_by(given) and not (self.unsaid and value == self.default)


def step_examples(knobs: Mapping[str, Any]) -> int:
    """How many examples one optimizer step is over, all workers together; expects canonical knobs
    of a trained trial."""
    if knobs["batch_size"] == AUTO:
        return int(knobs["effective_batch_size"])
    of_one = int(knobs["batch_size"]) * int(knobs["gradient_accumulation"])
    return of_one * int(knobs.get("workers", 1))


def needs_ranks(knobs: Mapping[str, Any]) -> bool:
    """Whether the trial runs under DeepSpeed, as `trainables.workers.distributed_trial` does, and
    not on a host alone.

    One worker with a ZeRO stage does too: alone it shards nothing, but it can offload.
    """
    return int(knobs.get("workers", 1)) > 1 or int(knobs.get("zero_stage", 0)) > 0


def check(name: str, value: Any) -> str | None:
    """What is wrong with `value` for knob `name`, or None; an unknown name is wrong."""
    if name not in KNOBS:
        return f"unknown key.{did_you_mean(name, KNOBS)}"
    return KNOBS[name].check(value)


def canonical(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with defaults filled in and unread knobs dropped, in KNOBS' order.

    Expects values that `check` accepts.
    """
    given = {
        name: knob.convert(configuration.get(name, knob.default)) for name, knob in KNOBS.items()
    }
    return {name: value for name, value in given.items() if KNOBS[name].is_written(given, value)}


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
        method = METHODS[configuration["method"]]
        return field in {item.name for item in dataclasses.fields(method)}

    return read_by


def _zero_stage(value: Any) -> str | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and value in ZERO_STAGES
    return None if fits else f"got {value!r}; needs 0 (none), 2 or 3."


def _double(configuration: Mapping[str, Any]) -> bool:
    return QUANTIZATIONS[configuration["quantization"]].has_double_quantization


def _batch_size(value: Any) -> str | None:
    fits = value == AUTO or whole(1)(value) is None
    return None if fits else f"got {value!r}; needs a whole number >= 1, or {AUTO}."


def _as_batch_size(value: Any) -> int | str:
    return AUTO if value == AUTO else int(value)


def _text(value: Any) -> str | None:
    ok = isinstance(value, str) and value.strip() != ""
    return None if ok else f"got {value!r}; needs a name or a path."


def _modules(value: Any) -> str | None:
    names = [value] if isinstance(value, str) else value
    ok = isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names)
    return None if ok else f"got {value!r}; needs 'all-linear' or a list of module names."


def _as_modules(value: Any) -> Any:
    return value if isinstance(value, str) else sorted(value)


AUTO = "auto"  # as batch_size: as many rows at once as fit
OPTIMIZERS = ("adamw", "paged_adamw_8bit", "sgd")
SCHEDULES = ("constant", "linear", "cosine")
COMPUTE_DTYPES = ("auto", "float32", "bfloat16", "float16")
TARGETS = ("answer", "program")
ZERO_STAGES = (0, 2, 3)  # 0: every worker holds all; 2: gradients, optimizer split; 3: weights too
NO_OFFLOAD = "none"
OFFLOADS = (NO_OFFLOAD, "cpu")  # where the optimizer's states lie
REDUCE_BUCKET = 50_000_000  # numbers that ZeRO sends at once; DeepSpeed's default takes 2 GB

KNOBS: dict[str, Knob] = {
    "model": Knob(None, _text, str, _always),
    "quantization": Knob("none", one_of(*QUANTIZATIONS), str, _always),
    "double_quantization": Knob(False, boolean, bool, _double),
    "compute_dtype": Knob("auto", one_of(*COMPUTE_DTYPES), str, _always),
    "method": Knob("lora", one_of(*METHODS), str, _always),
    "rank": Knob(8, whole(1), int, _field_of("rank")),
    "alpha": Knob(16, above(0), float, _field_of("alpha")),
    "dropout": Knob(0.0, within(0, 0.99), float, _field_of("dropout")),
    "target_modules": Knob("all-linear", _modules, _as_modules, _field_of("target_modules")),
    "workers": Knob(1, whole(1), int, _trained, unsaid=True),
    "zero_stage": Knob(0, _zero_stage, int, _trained, unsaid=True),
    "offload": Knob(NO_OFFLOAD, one_of(*OFFLOADS), str, _trained, unsaid=True),
    "learning_rate": Knob(2e-4, above(0), float, _trained),
    "batch_size": Knob(8, _batch_size, _as_batch_size, _trained),
    "gradient_accumulation": Knob(1, whole(1), int, _explicit_batch),
    "effective_batch_size": Knob(16, whole(1), int, _automatic_batch),
    "optimizer": Knob("adamw", one_of(*OPTIMIZERS), str, _trained),
    "schedule": Knob("linear", one_of(*SCHEDULES), str, _trained),
    "warmup": Knob(0.03, within(0, 1), float, _trained),
    "weight_decay": Knob(0.0, at_least(0), float, _trained),
    "max_gradient_norm": Knob(1.0, above(0), float, _trained),
    "gradient_checkpointing": Knob(False, boolean, bool, _trained),
    "sequence_length": Knob(1024, whole(16), int, _always),
    "prompt": Knob("default", _text, str, _always),
    "target": Knob("answer", one_of(*TARGETS), str, _always),
    "seed": Knob(0, whole(0), int, _trained),
}
