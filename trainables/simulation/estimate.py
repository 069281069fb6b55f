"""Memory and FLOPs of a configuration before it runs, from its config.json alone.

Its training step and its evaluation are run on fake tensors. `python -m
trainables.simulation.estimate` answers requests line by line, for a driver that imports no torch.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.errors import InputError
from trainables.models.base import quiet
from trainables.resources.estimate import Estimate, FlopRates, Term, TrialEstimate, Workload
from trainables.resources.flops import total_flops
from trainables.simulation.depth import model_config, simulate_any_depth
from trainables.simulation.devices import DEVICES
from trainables.simulation.step import EVAL_PHASES, TRAIN_PHASES, Measured
from trainables.simulation.token_lengths import TokenLengths, assumed_splits
from trainables.simulation.workload import planned_work
from trainables.spec.knobs import simulated_values
from trainables.spec.trial_spec import TrialSpec

VERSION = 1  # of what is predicted: another one makes cached predictions void
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
_DIGEST_NAMES = {"dropout": "drops"}  # as cached estimates have it; others have their own names
_NOT_SHAPE = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")
_predictions: dict[str, Estimate] = {}


def predict(
    config: Mapping[str, Any],
    knobs: Mapping[str, Any],
    workload: Workload,
    *,
    device: str = "cpu",
    cache: Path | None = None,
) -> Estimate:
    """What `config`, a model's config.json, needs under canonical `knobs` on a kind of device.

    `compute_dtype` must be resolved. Known shapes are answered from memory, and from files in the
    folder `cache` if given. Raises InputError for a device or a model that can't be simulated.
    """
    if device not in DEVICES:
        raise InputError(f"device: got {device!r}; known are {', '.join(DEVICES)}.")
    key = digest(config, knobs, workload, device=device)
    if key not in _predictions:
        found = _read(cache, key)
        if found is None:
            quiet()
            measured, depths = simulate_any_depth(config, knobs, workload, device=device)
            found = _prediction(measured, workload, device, depths)
            _write(cache, key, found)
        _predictions[key] = found
    return _predictions[key]


def digest(
    config: Mapping[str, Any], knobs: Mapping[str, Any], workload: Workload, *, device: str
) -> str:
    """Equal for what is predicted alike: shape, knobs that take memory, work, device, packages."""
    shape = {n: v for n, v in config.items() if n not in _NOT_SHAPE and not n.endswith("_id")}
    simulated = {_DIGEST_NAMES.get(name, name): value for name, value in simulated_values(knobs)}
    parts = [VERSION, _versions(), shape, simulated, asdict(workload), device]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def predict_trial(
    spec: TrialSpec,
    config: Mapping[str, Any],
    *,
    lengths: TokenLengths,
    device: str = "cpu",
    cache: Path | None = None,
    micro_batch: int | None = None,
    eval_batch: int | None = None,
    assume_lengths: bool = False,
) -> TrialEstimate:
    """What a trial needs and all that it computes, from the token lengths of its own task.

    `micro_batch` and `eval_batch`: rows at once, where they are not the spec's. Where its task
    can't be tokenized, or isn't to be (`assume_lengths`), rows are as long as they may be. Raises
    InputError for a device or a model that can't be simulated.
    """
    positions = getattr(model_config(config), "max_position_embeddings", None)
    splits, known = assumed_splits(spec, positions=positions), False
    if not assume_lengths:
        with contextlib.suppress(InputError, OSError, ValueError):
            splits, known = lengths.splits(spec, positions=positions), True
    work = planned_work(
        spec, splits, micro_batch=micro_batch, eval_batch=eval_batch, positions=positions
    )
    prediction = predict(config, spec.knobs, work.workload, device=device, cache=cache)
    workers = int(spec.knobs.get("workers", 1))  # each of them answers all questions
    return TrialEstimate(
        workload=work.workload,
        prediction=prediction,
        train_flops=total_flops(work.training, prediction.training),
        eval_flops=total_flops(work.evaluation, prediction.forward) * workers,
        knows_lengths=known,
    )


@functools.cache
def _versions() -> tuple[str, ...]:
    return tuple(version(package) for package in _PACKAGES)


def _read(cache: Path | None, key: str) -> Estimate | None:
    file = None if cache is None else cache / f"{key}.json"
    if file is None or not file.exists():
        return None
    try:
        return Estimate.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError):
        return None  # a damaged file is written anew


def _write(cache: Path | None, key: str, prediction: Estimate) -> None:
    if cache is None:
        return
    cache.mkdir(parents=True, exist_ok=True)
    beside = cache / f"{key}.{os.getpid()}.tmp"
    beside.write_text(json.dumps(prediction.to_json()), encoding="utf-8")
    beside.replace(cache / f"{key}.json")


def _prediction(
    measured: Measured, workload: Workload, device: str, depths: tuple[int, ...]
) -> Estimate:
    found = measured.bytes
    model = found["base"] + found["trained"]
    phases = {n: model + found[n] for n in (*TRAIN_PHASES, *EVAL_PHASES) if n in found}
    train = max((phases[name] for name in TRAIN_PHASES if name in phases), default=0)
    evaluation = max(phases[name] for name in EVAL_PHASES)
    terms = _terms(found) | dict(DEVICES[device].constants)
    constants = sum(term.bytes for term in DEVICES[device].constants.values())
    training, forward = _training_rates(measured, workload), _forward_rates(measured, workload)
    per_step = training.of(
        batch_size=workload.batch_size,
        length=workload.sequence_length,
        positions=workload.positions,
    )
    return Estimate(
        train_memory_bytes=train,
        eval_memory_bytes=evaluation,
        base_memory_bytes=found["base"],
        device_memory_bytes=max(train, evaluation + found.get("optimizer_state", 0)) + constants,
        phases=phases,
        terms=terms,
        train_flops_per_step=per_step,
        train_flops_per_token=per_step / (workload.batch_size * workload.sequence_length),
        eval_flops_per_batch=_eval_flops(forward, workload),
        training=training,
        forward=forward,
        depths=depths,
    )


def _terms(found: Mapping[str, int]) -> dict[str, Term]:
    return {name: Term(found[name], source) for name, source in _SOURCES.items() if name in found}


def _training_rates(measured: Measured, work: Workload) -> FlopRates:
    return _rates(
        measured.flops,
        "training",
        batch_size=work.batch_size,
        length=work.sequence_length,
        positions=work.positions,
    )


def _forward_rates(measured: Measured, work: Workload) -> FlopRates:
    return _rates(
        measured.flops,
        "forward",
        batch_size=work.eval_batch_size,
        length=work.eval_length,
        positions=work.eval_positions,
    )


def _rates(
    flops: Mapping[str, int], kind: str, *, batch_size: int, length: int, positions: int
) -> FlopRates:
    return FlopRates(
        token=flops.get(f"{kind}.token", 0) / (batch_size * length),
        pair=flops.get(f"{kind}.pair", 0) / (batch_size * length**2),
        logit=flops.get(f"{kind}.logit", 0) / max(1, batch_size * positions),
    )


def _eval_flops(forward: FlopRates, work: Workload) -> float:
    """Of a batch's loss and of its answers."""
    loss = forward.of(
        batch_size=work.eval_batch_size, length=work.eval_length, positions=work.eval_positions
    )
    return loss + forward.of_generation(
        batch_size=work.eval_batch_size, prompt=work.prompt_length, new_tokens=work.new_tokens
    )


_SOURCES = {
    "base": "the frozen weights as they are stored, with the quantization's scales",
    "trained": "what the method trains: PEFT keeps adapters in float32",
    "gradients": "one per trained number",
    "optimizer_state": "what the optimizer keeps from step to step in torch's allocator",
    "paged_optimizer_state": "bitsandbytes' paged states: managed memory that moves to the host "
    "under pressure; torch's allocator doesn't see it, and no total holds it",
    "dequantized_weight": "the largest weight that a 4-bit or int8 matmul dequantizes at once "
    "(bitsandbytes' unfused path and every backward pass); in the phases already",
}
