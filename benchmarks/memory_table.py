"""Prints the tables of docs/memory.md: memory of LoRA and full fine-tuning on GPUs of 40 GiB.

    python -m benchmarks.memory_table [--gpu-memory 40GiB] [--length 2048]

The tables hold estimates by simulation, on any machine: nothing is measured.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator.config.settings import parsed_size
from orchestrator.formatting import in_words
from orchestrator.planning.known_models import POPULAR
from trainables.resources.estimate import Estimate, Workload
from trainables.resources.zero_memory import sharded_train_bytes
from trainables.simulation.estimate import predict
from trainables.spec.knobs import canonical

MODELS = {
    "Llama-3-8B": "meta-llama/Meta-Llama-3-8B",
    "Llama-2-7B": "meta-llama/Llama-2-7b-hf",
}
REFERENCE: Mapping[str, Any] = {
    "method": "lora",
    "rank": 16,
    "compute_dtype": "bfloat16",
    "batch_size": 4,
}
_GIBIBYTE = 1 << 30
_LONGEST_BATCH = 256


@dataclass(frozen=True)
class Case:
    """One configuration: a model, a trial's knobs, the length of its examples in tokens."""

    model: str
    knobs: Mapping[str, Any]
    length: int

    def but(self, *, length: int | None = None, **knobs: Any) -> Case:
        return replace(self, knobs={**self.knobs, **knobs}, length=length or self.length)


def train_bytes(case: Case) -> int:
    """The memory of a device that the training of a case needs, the device's constant included."""
    estimate, knobs = estimated(case)
    states = estimate.terms["optimizer_state"].bytes
    tensors = max(estimate.train_memory_bytes, estimate.eval_memory_bytes + states)
    constants = estimate.device_memory_bytes - tensors
    return sharded_train_bytes(estimate, knobs) + constants


def estimated(case: Case) -> tuple[Estimate, dict[str, Any]]:
    """The estimate by simulation, and the case's canonical knobs."""
    knobs = canonical({"model": case.model, **case.knobs})
    workload = Workload(
        batch_size=int(knobs["batch_size"]), sequence_length=case.length, eval_batch_size=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return predict(POPULAR[MODELS[case.model]], knobs, workload, device="cuda"), knobs


def largest_batch(case: Case, capacity: int) -> int:
    """The largest batch size that fits, or 0 if none does.

    Memory is nearly linear in the batch size, so the search starts at a linear guess.
    """

    def fits(rows: int) -> bool:
        return train_bytes(case.but(batch_size=rows)) <= capacity

    if not fits(1):
        return 0
    low, high = train_bytes(case.but(batch_size=4)), train_bytes(case.but(batch_size=8))
    rows = int(4 + 4 * (capacity - low) / (high - low))
    rows = min(max(1, rows), _LONGEST_BATCH)
    while rows > 1 and not fits(rows):
        rows -= 1
    while rows < _LONGEST_BATCH and fits(rows + 1):
        rows += 1
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory_table",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    parser.add_argument("--gpu-memory", default="40GiB", help="(default: %(default)s)")
    parser.add_argument(
        "--length", type=int, default=2048, help="tokens of an example (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    capacity = parsed_size(given.gpu_memory)
    if capacity is None:
        parser.error(f"--gpu-memory: got {given.gpu_memory!r}; needs a size, as 40GiB.")
    for lines in (
        batch_sizes(capacity, given.length),
        savings(given.length),
        full_fine_tuning(capacity, given.length),
    ):
        print("\n".join(lines), flush=True)


def batch_sizes(capacity: int, length: int) -> list[str]:
    """The table of batch sizes for LoRA, by model, quantization and checkpointing."""
    sizes = (1, 2, 4, 8, 16)
    heads = " | ".join(f"batch {rows}" for rows in sizes)
    lines = [
        f"\n### LoRA on one device of {in_words(capacity)}, length {length}\n",
        f"| model | quantization | checkpointing | {heads} | most rows that fit |",
        "|---|---|---|" + "--:|" * (len(sizes) + 1),
    ]
    for model in MODELS:
        for quantization in ("none", "int8", "nf4"):
            for checkpointing in (False, True):
                case = Case(model, REFERENCE, length).but(
                    quantization=quantization, gradient_checkpointing=checkpointing
                )
                needs = [train_bytes(case.but(batch_size=rows)) for rows in sizes]
                cells = [_marked(need, capacity) for need in needs]
                on = "yes" if checkpointing else "no"
                most = largest_batch(case, capacity) or "none"
                lines.append(f"| {model} | {quantization} | {on} | {' | '.join(cells)} | {most} |")
                print(lines[-1], file=sys.stderr, flush=True)
    return lines


CHANGES: Mapping[str, Mapping[str, Any]] = {
    "batch_size 2 instead of 4": {"batch_size": 2},
    "batch_size 1 instead of 4": {"batch_size": 1},
    "gradient_checkpointing: true": {"gradient_checkpointing": True},
    "quantization: int8": {"quantization": "int8"},
    "quantization: nf4": {"quantization": "nf4"},
    "nf4 with double_quantization": {"quantization": "nf4", "double_quantization": True},
    "optimizer: paged_adamw_8bit": {"optimizer": "paged_adamw_8bit"},
    "optimizer: sgd": {"optimizer": "sgd"},
    "rank 4 instead of 16": {"rank": 4},
    "rank 64 instead of 16": {"rank": 64},
    "target_modules: q_proj, v_proj": {"target_modules": ["q_proj", "v_proj"]},
    "dropout 0.05 instead of 0": {"dropout": 0.05},
    "length halved": {},
    "checkpointing and nf4": {"gradient_checkpointing": True, "quantization": "nf4"},
}


def savings(length: int) -> list[str]:
    """The table of savings: one setting at a time, against one reference."""
    lines = [
        f"\n### What saves memory: LoRA, rank 16, batch 4, length {length}, one change at a time\n",
        "| change | " + " | ".join(f"{model} | saved" for model in MODELS) + " |",
        "|---|" + "--:|" * (2 * len(MODELS)),
    ]
    cases = [Case(model, REFERENCE, length) for model in MODELS]
    before = [train_bytes(case) for case in cases]
    lines.append("| none | " + " | ".join(f"{_gib(need)} | " for need in before) + " |")
    for words, change in CHANGES.items():
        changed = length // 2 if words == "length halved" else length
        cells = []
        for case, was in zip(cases, before, strict=True):
            need = train_bytes(case.but(length=changed, **change))
            cells += [_gib(need), f"{(was - need) / _GIBIBYTE:+.1f}"]
        lines.append(f"| {words} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def full_fine_tuning(capacity: int, length: int) -> list[str]:
    """The table of full fine-tuning: memory of each of four devices, by ZeRO stage."""
    lines = [
        f"\n### Full fine-tuning on 4 devices of {in_words(capacity)}, batch 1 each, "
        f"length {length}\n",
        "| zero_stage | offload | checkpointing | " + " | ".join(MODELS) + " |",
        "|---|---|---|" + "--:|" * len(MODELS),
    ]
    full = {"method": "full", "compute_dtype": "bfloat16", "batch_size": 1, "workers": 4}
    for stage, offload in ((2, "none"), (3, "none"), (3, "cpu")):
        for checkpointing in (False, True):
            change: dict[str, Any] = {"zero_stage": stage, "offload": offload}
            needs = [
                train_bytes(
                    Case(model, full, length).but(gradient_checkpointing=checkpointing, **change)
                )
                for model in MODELS
            ]
            cells = " | ".join(_marked(need, capacity) for need in needs)
            on = "yes" if checkpointing else "no"
            lines.append(f"| {stage} | {offload} | {on} | {cells} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def _marked(need: int, capacity: int) -> str:
    """GiB as text, in brackets if they do not fit."""
    return _gib(need) if need <= capacity else f"({_gib(need)})"


def _gib(need: int) -> str:
    return f"{need / _GIBIBYTE:.1f}"


if __name__ == "__main__":
    main()
