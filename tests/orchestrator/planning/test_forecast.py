"""Forecasts: which trials fit, the text of a refusal, and the changes that would fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.planning.capacity import CUDA, Capacity
from orchestrator.planning.forecast import Forecast
from orchestrator.planning.forecaster import Forecaster
from orchestrator.runs.ledger import TrialRecord
from tests.orchestrator import tiny_sweep
from tests.orchestrator.planning.test_planner import config, one
from tests.orchestrator.predicted import MEBIBYTE, LinearPredictions, forecaster
from trainables.resources.estimate import TrialEstimate
from trainables.spec.events import Event
from trainables.spec.states import FINISHED
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.trial_folder import TrialFolder


def spec(**knobs: Any) -> TrialSpec:
    return tiny_sweep.planner(config()).spec(one(**knobs))


def baseline(**knobs: Any) -> TrialSpec:
    return tiny_sweep.planner(config()).baseline(one(**knobs))


def forecast(trial: TrialSpec, mebibytes: int | None, **more: Any) -> Forecast:
    available = None if mebibytes is None else mebibytes * MEBIBYTE
    found = forecaster(available, **more).of(trial)
    assert found is not None
    return found


def test_what_fits_is_told_with_its_bytes_and_flops() -> None:
    found = forecast(spec(batch_size=4), 400)
    assert found.refusal is None
    assert found.train_memory_bytes == 300 * MEBIBYTE
    assert found.device_memory_bytes == 300 * MEBIBYTE
    told = found.to_json()
    assert told["uncorrected_train_memory_bytes"] == told["train_memory_bytes"]
    assert (told["train_flops"], told["eval_flops"]) == (3e12, 1e12)
    assert told["forward"] == {"token": 6.0, "pair": 1.0, "logit": 2.0, "fixed": 0.0}
    assert (told["device"], told["micro_batch"]) == ("cpu", 4)


def test_what_does_not_fit_is_refused_with_needed_and_available_bytes_and_what_would_fit() -> None:
    refusal = forecast(spec(batch_size=8, gradient_accumulation=2), 320).refusal
    assert refusal == (
        "lora of a-model (none, batch_size 8, sequence_length 256) needs 500 MiB; 320 MiB are "
        "available (a test's). Would fit: batch_size: 4 with gradient_accumulation: 4 (300 MiB); "
        "gradient_checkpointing: true (141 MiB)."
    )


def test_another_quantization_is_what_would_fit_where_a_batch_is_not() -> None:
    refusal = forecast(spec(batch_size=1, gradient_checkpointing=True), 90).refusal
    assert "needs 111 MiB; 90 MiB are available" in str(refusal)
    assert "Would fit: quantization: nf4 (66 MiB)." in str(refusal)


def test_where_nothing_would_fit_that_is_said() -> None:
    refusal = forecast(spec(batch_size=2), 5).refusal
    assert "Nothing else than a smaller model or a shorter sequence_length" in str(refusal)


def test_a_need_that_reads_as_what_is_there_is_told_to_the_byte() -> None:
    predictions = forecaster(300 * MEBIBYTE - 7)
    found = predictions.of(spec(batch_size=4))
    assert found is not None
    assert "needs 300 MiB and 7 bytes; 300 MiB are available" in str(found.refusal)


@pytest.mark.parametrize(
    ("mebibytes", "rows"), [(10_000, 12), (700, 12), (699, 6), (400, 6), (300, 4), (160, 1)]
)
def test_an_automatic_batch_size_is_the_largest_that_fits(mebibytes: int, rows: int) -> None:
    """Of those that make the effective batch in 1, 2, 3, ... parts."""
    found = forecast(spec(batch_size="auto", effective_batch_size=12), mebibytes)
    assert found.micro_batch == rows
    assert found.refusal is None
    assert found.to_json()["micro_batch"] == rows


def test_an_automatic_batch_size_that_does_not_fit_with_one_row_is_refused() -> None:
    found = forecast(spec(batch_size="auto", effective_batch_size=12), 149)
    assert found.micro_batch == 1
    assert "batch_size auto" in str(found.refusal)
    assert "gradient_checkpointing: true" in str(found.refusal)


def test_an_evaluation_shrinks_before_its_trial_is_refused() -> None:
    """As the worker halves its batches: 4 rows of 10 MiB and 100 MiB do not fit into 125."""
    found = forecast(baseline(), 125)
    assert found.refusal is None
    assert found.eval_memory_bytes == 120 * MEBIBYTE
    assert forecast(baseline(), 100).refusal is not None


def test_without_a_capacity_nothing_is_refused() -> None:
    assert forecast(spec(batch_size=512), None).refusal is None


def test_what_can_not_be_predicted_is_neither_refused_nor_told() -> None:
    unknown = LinearPredictions(known=False)
    assert forecaster(1, unknown).of(spec()) is None


def test_no_warning_comes_of_what_is_only_proposed() -> None:
    """As a quantization of a model whose experts it would not reach."""
    warning: dict[str, bool] = {}

    class Unquantizable(LinearPredictions):
        def of(self, request: Mapping[str, Any], *, warns: bool = True) -> TrialEstimate | None:
            quantization = request["trial"]["knobs"]["quantization"]
            warning.setdefault(quantization, warns)
            return super().of(request, warns=warns) if quantization == "none" else None

    found = forecaster(90 * MEBIBYTE, Unquantizable()).of(spec(batch_size=1))
    assert found is not None and "Nothing else than a smaller model" in str(found.refusal)
    assert warning == {"none": True, "nf4": False}


def test_more_workers_are_what_would_fit_full_fine_tuning() -> None:
    refusal = forecast(spec(method="full", batch_size=4), 200, devices=4).refusal
    assert "full fine-tuning of a-model" in str(refusal)
    assert (
        "workers: 4, zero_stage: 3, offload: none, batch_size: 1, gradient_accumulation: 1"
    ) in str(refusal)


def test_more_workers_than_there_are_gpus_are_refused() -> None:
    gpus = Capacity(10**12, CUDA, "a test's", devices=2)
    forecasts = Forecaster(
        LinearPredictions(), capacity=gpus, device=CUDA, model_config=lambda spec: {}
    )
    found = forecasts.of(spec(method="full", workers=4, batch_size=1))
    assert found is not None and "Use workers <= 2" in str(found.refusal)
    fitting = forecasts.of(spec(method="full", workers=2, batch_size=1))
    assert fitting is not None and fitting.refusal is None


def test_finished_trials_correct_the_forecasts_made_from_then_on(tmp_path: Any) -> None:
    forecasts = forecaster(310 * MEBIBYTE)
    first = forecasts.of(spec(batch_size=4))
    assert first is not None and first.refusal is None
    folder = TrialFolder(tmp_path / "trial")
    folder.write_estimate(first.to_json())
    peaks = {"train_peak_memory_bytes": 330.0 * MEBIBYTE, "executed_batch_size": 4.0}
    record = TrialRecord(spec(batch_size=4), folder, FINISHED)
    record.history = [Event("finished", 1, 4, peaks, 1.0)]
    assert forecasts.learn(record)
    assert not forecasts.learn(record)  # nothing new
    assert forecasts.known(spec(batch_size=4)) is None  # it is made anew
    later = forecasts.of(spec(batch_size=4, learning_rate=1e-5))
    assert later is not None
    assert later.train_memory_bytes == 330 * MEBIBYTE
    assert later.to_json()["uncorrected_train_memory_bytes"] == 300 * MEBIBYTE
    assert later.refusal is not None


def test_each_trial_is_forecast_once_and_nothing_is_waited_for_until_asked() -> None:
    predictions = LinearPredictions()
    forecasts = forecaster(None, predictions)
    assert forecasts.known(spec()) is None
    assert predictions.asked == []
    forecasts.of(spec())
    assert forecasts.is_ready(spec())
    forecasts.of(spec())
    assert len(predictions.asked) == 1
    forecasts.close()
    assert predictions.closed
