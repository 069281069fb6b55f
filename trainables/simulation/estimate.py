"""Memory and FLOPs of a configuration before it runs, from its config.json alone.

Its training step and its evaluation run on fake tensors. `trainables.simulation.service` answers
requests of a driver that imports no torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.data.token_lengths import TokenLengths, assumed_splits
from trainables.errors import InputError
from trainables.methods.blocks import decoder_config
from trainables.models.base import quiet
from trainables.models.states import has_states
from trainables.resources.estimate import Estimate, FlopRates, Term, TrialEstimate, Workload
from trainables.resources.flops import (
    ForwardBackward,
    Generation,
    choice_passes,
    total_flops,
)
from trainables.simulation.depth import model_config, simulate_any_depth
from trainables.simulation.devices import DEVICES
from trainables.simulation.phases import EVAL_PHASES, TRAIN_PHASES
from trainables.simulation.step import Measured
from trainables.simulation.workload import planned_work
from trainables.spec.decoding import Decoding
from trainables.spec.knobs import simulated_values
from trainables.spec.trial_spec import TrialSpec

VERSION = 4  # of the estimates: a new version makes cached ones void
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
_DIGEST_NAMES = {"dropout": "drops"}  # the name in cached estimates; other knobs keep theirs
_NOT_SHAPE = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")
_estimates: dict[str, Estimate] = {}


def predict(
    config: Mapping[str, Any],
    knobs: Mapping[str, Any],
    workload: Workload,
    *,
    device: str = "cpu",
    cache: Path | None = None,
) -> Estimate:
    """The needs of `config`, a model's config.json, under canonical `knobs` on a kind of device.

    `compute_dtype` must be resolved. Estimates are kept in memory, and in files of the folder
    `cache` if it is given. Raises InputError for a device or a model that can't be simulated.
    """
    if device not in DEVICES:
        raise InputError(f"device: got {device!r}; known are {', '.join(DEVICES)}.")
    key = digest(config, knobs, workload, device=device)
    if key not in _estimates:
        found = _read(cache, key)
        if found is None:
            quiet()
            measured, depths = simulate_any_depth(config, knobs, workload, device=device)
            decoding = Decoding.of(knobs)
            found = _estimate(measured, workload, device, depths, decoding=decoding)
            _write(cache, key, found)
        _estimates[key] = found
    return _estimates[key]


def digest(
    config: Mapping[str, Any], knobs: Mapping[str, Any], workload: Workload, *, device: str
) -> str:
    """Equal for equal estimates: shape, knobs that a simulation reads, work, device, packages."""
    shape = {n: v for n, v in config.items() if n not in _NOT_SHAPE and not n.endswith("_id")}
    simulated = {_DIGEST_NAMES.get(name, name): value for name, value in simulated_values(knobs)}
    simulated |= Decoding.of(knobs).shape
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
    """The needs of a trial, and all the FLOPs that it computes, from the token lengths of its task.

    `micro_batch` and `eval_batch` replace the batch sizes of the spec. If the task can't be
    tokenized, or with `assume_lengths`, every example has the greatest length allowed. Raises
    InputError for a device or a model that can't be simulated.
    """
    model = model_config(config)
    positions = getattr(decoder_config(model), "max_position_embeddings", None)
    splits, fault = assumed_splits(spec, positions=positions), ""
    if not assume_lengths:
        try:
            splits = lengths.splits(spec, positions=positions)
        except (OSError, ValueError) as error:  # InputError is a ValueError
            fault = str(error).strip().partition("\n")[0] or type(error).__name__
    work = planned_work(
        spec,
        splits,
        micro_batch=micro_batch,
        eval_batch=eval_batch,
        positions=positions,
        keeps_states=has_states(model),
    )
    estimate = predict(config, spec.knobs, work.workload, device=device, cache=cache)
    workers = int(spec.knobs.get("workers", 1))  # each of them answers all questions
    return TrialEstimate(
        workload=work.workload,
        prediction=estimate,
        train_flops=total_flops(work.training, estimate.training),
        eval_flops=total_flops(work.evaluation, estimate.forward) * workers,
        knows_lengths=not (fault or assume_lengths),
        lengths_fault=fault,
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
        return None  # a damaged file is replaced


def _write(cache: Path | None, key: str, estimate: Estimate) -> None:
    if cache is None:
        return
    cache.mkdir(parents=True, exist_ok=True)
    temporary = cache / f"{key}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(estimate.to_json()), encoding="utf-8")
    temporary.replace(cache / f"{key}.json")


def _estimate(
    measured: Measured,
    workload: Workload,
    device: str,
    depths: tuple[int, ...],
    *,
    decoding: Decoding,
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
        eval_flops_per_batch=_eval_flops(forward, workload, decoding),
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
    """Of the first pass of the evaluation, which is one over whole rows."""
    if work.eval_beginning:
        length = work.eval_beginning
        return _rates(measured.flops, "forward", batch_size=1, length=length, positions=1)
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
        fixed=flops.get(f"{kind}.fixed", 0),
    )


def _eval_flops(forward: FlopRates, work: Workload, decoding: Decoding) -> float:
    """FLOPs of the loss and the answers of a batch: for each of their votes, and of choices one for
    each question."""
    known, rows = work.eval_beginning, decoding.questions_at_once(work.answers_batch_size)
    done: list[ForwardBackward | Generation] = [
        ForwardBackward(work.eval_batch_size, work.eval_length, work.eval_positions, known)
    ]
    if work.new_tokens:
        written = Generation(rows * decoding.beams, work.prompt_length, work.new_tokens, known)
        done += [written] * decoding.votes
    if work.eval_choice_tokens:
        choices = [[work.eval_choice_tokens]] * rows
        done += choice_passes([work.prompt_length] * rows, choices, known=known)
    return total_flops(done, forward)


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
