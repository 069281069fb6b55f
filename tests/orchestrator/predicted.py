"""Memory estimates without a simulation, for tests: memory is linear in the batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.planning.calibration import Calibration
from orchestrator.planning.capacity import CPU, Capacity
from orchestrator.planning.forecaster import Forecaster
from orchestrator.planning.planner import Planner
from trainables.resources.estimate import Estimate, FlopRates, Term, TrialEstimate, Workload

MEBIBYTE = 1 << 20
MODEL = 100 * MEBIBYTE  # weights in 16 bits; in 4 bits a quarter
ROW = 50 * MEBIBYTE  # an example of a micro-batch; with checkpointing a tenth
EVAL_ROW = 10 * MEBIBYTE
RATES = FlopRates(token=6.0, pair=1.0, logit=2.0)


class LinearPredictions:
    """Answers requests with `estimate_of`, or with None if `known` is false; `asked` records them.

    Training takes MODEL bytes and ROW bytes per example, an evaluation MODEL and EVAL_ROW bytes.
    """

    def __init__(self, *, known: bool = True) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.closed = False
        self._known = known

    def of(self, request: Mapping[str, Any], *, warns: bool = True) -> TrialEstimate | None:
        self.asked.append(request)
        return estimate_of(request) if self._known else None

    def close(self) -> None:
        self.closed = True


def estimate_of(request: Mapping[str, Any]) -> TrialEstimate:
    """The estimate for a request to the simulator."""
    knobs = request["trial"]["knobs"]
    rows, eval_rows = request["micro_batch"] or 0, request["eval_batch"]
    model = MODEL if knobs["quantization"] in ("none", "int8") else MODEL // 4
    each = ROW // 10 if knobs.get("gradient_checkpointing") else ROW
    train = 0 if knobs["method"] == "untrained" else model + rows * each
    judged = model + eval_rows * EVAL_ROW
    prediction = Estimate(
        train_memory_bytes=train,
        eval_memory_bytes=judged,
        base_memory_bytes=model,
        device_memory_bytes=max(train, judged + MEBIBYTE),
        phases={"loss": train, "eval_loss": judged},
        terms={"optimizer_state": Term(MEBIBYTE, "a test's")},
        train_flops_per_step=1e9,
        train_flops_per_token=1e6,
        eval_flops_per_batch=1e8,
        training=RATES,
        forward=RATES,
        depths=(2,),
    )
    workload = Workload(batch_size=max(1, rows), sequence_length=64, eval_batch_size=eval_rows)
    return TrialEstimate(workload, prediction, train_flops=3e12, eval_flops=1e12)


def forecaster(
    available: int | None, predictions: LinearPredictions | None = None, *, devices: int = 1
) -> Forecaster:
    """A forecaster for a CPU with `available` bytes for a trial; None: unknown capacity."""
    capacity = None if available is None else Capacity(available, CPU, "a test's", devices)
    return Forecaster(
        predictions or LinearPredictions(),
        capacity=capacity,
        device=CPU,
        model_config=lambda spec: {"model_type": "llama"},
        calibration=Calibration(),
    )


def with_memory(planner: Planner, available: int | None) -> Planner:
    """Makes the planner refuse trials that need more than `available` bytes."""
    planner.forecaster = forecaster(available)
    return planner
