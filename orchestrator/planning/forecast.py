"""Forecast: what one trial will need on the sweep's hardware, and why it can't run there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trainables.resources.estimate import TrialEstimate
from trainables.spec.trial_spec import TrialSpec


@dataclass(frozen=True)
class Forecast:
    """What one trial will need; bytes are calibrated unless their name says otherwise.

    `refusal`: why it can't run, or None.
    """

    estimate: TrialEstimate
    device: str
    train_memory_bytes: int
    eval_memory_bytes: int
    device_memory_bytes: int
    uncorrected_train_memory_bytes: int
    micro_batch: int | None  # examples at once; None for a baseline
    eval_batch: int  # questions at once
    refusal: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of a trial's prediction.json."""
        step = self.estimate.prediction
        return {
            "train_memory_bytes": self.train_memory_bytes,
            "eval_memory_bytes": self.eval_memory_bytes,
            "device_memory_bytes": self.device_memory_bytes,
            "uncorrected_train_memory_bytes": self.uncorrected_train_memory_bytes,
            "uncorrected_eval_memory_bytes": step.eval_memory_bytes,
            "train_flops": self.estimate.train_flops,
            "eval_flops": self.estimate.eval_flops,
            "training": asdict(step.training),
            "forward": asdict(step.forward),
            "device": self.device,
            "micro_batch": self.micro_batch,
            "eval_batch": self.eval_batch,
            "knows_lengths": self.estimate.knows_lengths,
        }

    @property
    def train_device_bytes(self) -> int:
        """The device memory of the training alone."""
        return self.train_memory_bytes + constant_bytes(self.estimate)


def constant_bytes(estimate: TrialEstimate) -> int:
    """What the device takes besides tensors."""
    step = estimate.prediction
    states = step.terms.get("optimizer_state")  # stays on the device during an evaluation
    kept = 0 if states is None else states.bytes
    tensors = max(step.train_memory_bytes, step.eval_memory_bytes + kept)
    return step.device_memory_bytes - tensors


def named(spec: TrialSpec) -> str:
    """The subject of a refusal: what is trained or evaluated, of which model, at which size."""
    knobs = spec.knobs
    model = knobs["model"]
    if not spec.method.trains:
        return f"Judging {model} ({knobs['quantization']})"
    shape = f"batch_size {knobs['batch_size']}, sequence_length {knobs['sequence_length']}"
    return f"{spec.method.activity} of {model} ({knobs['quantization']}, {shape})"
