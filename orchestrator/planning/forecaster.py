"""Forecaster: forecasts of trials, from estimates, calibration and the device's capacity.

An estimate (`orchestrator.planning.simulator`) is calibrated by what finished trials took
(`orchestrator.planning.calibration`) and compared with the capacity. An evaluation and an automatic
batch size shrink until they fit, as in the worker, before a trial is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from orchestrator.formatting import in_words
from orchestrator.planning.alternatives import alternatives_of, batching, micro_batch_sizes
from orchestrator.planning.calibration import Calibration
from orchestrator.planning.capacity import CUDA, Capacity
from orchestrator.planning.forecast import Forecast, constant_bytes, named
from orchestrator.planning.model_config import model_config
from orchestrator.runs.ledger import TrialRecord
from trainables.resources.estimate import TrialEstimate
from trainables.resources.zero_memory import kept_bytes, sharded_eval_bytes, sharded_train_bytes
from trainables.spec.knob_values import AUTO
from trainables.spec.trial_spec import TrialSpec

ModelConfig = Callable[[TrialSpec], Mapping[str, Any] | None]


def config_of(spec: TrialSpec) -> Mapping[str, Any] | None:
    """The config.json of the trial's model, or None."""
    found: Mapping[str, Any] | None = model_config(spec.model_source, spec.revision)
    return found


def known_config(spec: TrialSpec) -> Mapping[str, Any] | None:
    """As `config_of`, without access to the hub."""
    found: Mapping[str, Any] | None = model_config(
        spec.model_source, spec.revision, ask_the_hub=False
    )
    return found


class EstimateSource(Protocol):
    """Where estimates come from: `orchestrator.planning.simulator.SimulatorClient`."""

    def of(self, request: Mapping[str, Any], *, warns: bool = True) -> TrialEstimate | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _Attempt:
    """A spec with the batch sizes that are tried for it. `warns` if no estimate can be made, but
    not of one that would only be proposed."""

    spec: TrialSpec
    micro_batch: int | None
    eval_batch: int
    warns: bool = True


class Forecaster:
    """Makes the forecasts of one start of a sweep, one after another, in a thread of its own.

    `is_ready` requests a forecast and returns whether it is available; `of` blocks until it is.
    A forecast is None if no estimate is possible. If the capacity is unknown, no trial is refused.
    """

    def __init__(
        self,
        estimates: EstimateSource,
        *,
        capacity: Capacity | None,
        device: str,
        model_config: ModelConfig = config_of,
        calibration: Calibration | None = None,
    ) -> None:
        self._estimates = estimates
        self._capacity = capacity
        self._device = device
        self._model_config = model_config
        self.calibration = calibration or Calibration()
        self._requested: dict[str, Future[Forecast | None]] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forecast")

    @property
    def capacity(self) -> Capacity | None:
        return self._capacity

    def request(self, spec: TrialSpec) -> Future[Forecast | None]:
        """The forecast, once it is made; each is made once."""
        if spec.trial_id not in self._requested:
            self._requested[spec.trial_id] = self._pool.submit(self._make, spec)
        return self._requested[spec.trial_id]

    def is_ready(self, spec: TrialSpec) -> bool:
        return self.request(spec).done()

    def of(self, spec: TrialSpec) -> Forecast | None:
        return self.request(spec).result()

    def known(self, spec: TrialSpec) -> Forecast | None:
        """The forecast if it has been made; never requests one."""
        requested = self._requested.get(spec.trial_id)
        return requested.result() if requested is not None and requested.done() else None

    def learn(self, record: TrialRecord) -> bool:
        """Calibrates later forecasts by a finished trial; returns whether any changes.

        Forecasts that are already made are dropped then, so that they are made again."""
        knobs = record.spec.knobs
        before = self.calibration.factors(knobs, self._device)
        self.calibration.update(record)
        changed = self.calibration.factors(knobs, self._device) != before
        if changed:
            self._requested = {
                name: made for name, made in self._requested.items() if not made.done()
            }
        return changed

    def close(self) -> None:
        """Stops making forecasts."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._estimates.close()

    def _make(self, spec: TrialSpec) -> Forecast | None:
        config = self._model_config(spec)
        if config is None:
            return None
        forecast = self._shrunk(spec, config)
        if forecast is not None and (too_many := self._too_many_workers(spec)):
            return replace(forecast, refusal=too_many)
        if forecast is None or self._fits(forecast):
            return forecast
        return replace(forecast, refusal=self._refusal(spec, forecast, config))

    def _shrunk(self, spec: TrialSpec, config: Mapping[str, Any]) -> Forecast | None:
        """With the largest micro-batch that fits if the trial leaves it open; else with its own."""
        if spec.knobs.get("batch_size") != AUTO:
            given = spec.knobs.get("batch_size")
            return self._with_eval_batch(spec, config, None if given is None else int(given))
        return self._largest(
            spec, config, micro_batch_sizes(int(spec.knobs["effective_batch_size"]))
        )

    def _largest(
        self, spec: TrialSpec, config: Mapping[str, Any], sizes: list[int], *, warns: bool = True
    ) -> Forecast | None:
        """With the largest of the micro-batches `sizes`, descending, that fits; else with the
        smallest."""
        low, high = 0, len(sizes) - 1
        found = None
        while low < high:
            middle = (low + high) // 2
            attempt = self._with_eval_batch(spec, config, sizes[middle], warns=warns)
            if attempt is None:
                return None
            if self._fits(attempt):
                found, high = attempt, middle
            else:
                low = middle + 1
        if found is not None and found.micro_batch == sizes[low]:
            return found
        return self._with_eval_batch(spec, config, sizes[low], warns=warns)

    def _with_eval_batch(
        self,
        spec: TrialSpec,
        config: Mapping[str, Any],
        micro_batch: int | None,
        *,
        warns: bool = True,
    ) -> Forecast | None:
        """Halves the evaluation's batch until it fits, down to one question."""
        attempt = _Attempt(spec, micro_batch, spec.execution.eval_batch_size, warns)
        while True:
            found = self._forecast(attempt, config)
            if found is None or self._evaluation_fits(found) or attempt.eval_batch == 1:
                return found
            attempt = replace(attempt, eval_batch=(attempt.eval_batch + 1) // 2)

    def _forecast(self, attempt: _Attempt, config: Mapping[str, Any]) -> Forecast | None:
        trial = attempt.spec.to_json()
        shape = {"micro_batch": attempt.micro_batch, "eval_batch": attempt.eval_batch}
        estimate = self._estimates.of(
            {"config": dict(config), "trial": trial, "device": self._device, **shape},
            warns=attempt.warns,
        )
        return None if estimate is None else self._calibrated(estimate, attempt)

    def _calibrated(self, estimate: TrialEstimate, attempt: _Attempt) -> Forecast:
        step, knobs = estimate.prediction, attempt.spec.knobs
        factors = self.calibration.factors(knobs, self._device)
        uncorrected = sharded_train_bytes(step, knobs)
        train = round(uncorrected * factors.train)
        evaluation = round(sharded_eval_bytes(step, knobs) * factors.evaluation)
        tensors = max(train, evaluation + kept_bytes(step, knobs))
        return Forecast(
            estimate=estimate,
            device=self._device,
            train_memory_bytes=train,
            eval_memory_bytes=evaluation,
            device_memory_bytes=tensors + constant_bytes(estimate),
            uncorrected_train_memory_bytes=uncorrected,
            micro_batch=attempt.micro_batch,
            eval_batch=attempt.eval_batch,
        )

    def _fits(self, forecast: Forecast) -> bool:
        return self._capacity is None or forecast.device_memory_bytes <= self._capacity.bytes

    def _evaluation_fits(self, forecast: Forecast) -> bool:
        """Whether it fits, or what does not fit is the training."""
        too_large = forecast.device_memory_bytes > forecast.train_device_bytes
        return self._fits(forecast) or not too_large

    def _too_many_workers(self, spec: TrialSpec) -> str | None:
        """The refusal of more workers than GPUs: each takes one, and Ray would wait forever."""
        workers = int(spec.knobs.get("workers", 1))
        if self._capacity is None or self._capacity.device_type != CUDA:
            return None
        if workers <= self._capacity.devices:
            return None
        return (
            f"asks for {workers} workers with a GPU each; the cluster has, or can grow to, "
            f"{self._capacity.devices}. Use workers <= {self._capacity.devices}."
        )

    def _refusal(self, spec: TrialSpec, forecast: Forecast, config: Mapping[str, Any]) -> str:
        assert self._capacity is not None
        needed, available = forecast.device_memory_bytes, self._capacity.bytes
        words = in_words(needed)
        if words == in_words(available):
            words += f" and {needed - available:,} bytes"
        return (
            f"{named(spec)} needs {words}; {in_words(available)} are available "
            f"({self._capacity.source}). {self._advice(spec, config)}"
        )

    def _advice(self, spec: TrialSpec, config: Mapping[str, Any]) -> str:
        found = list(self._what_fits(spec, config))
        if not found:
            return "Nothing else than a smaller model or a shorter sequence_length would fit."
        return "Would fit: " + "; ".join(found) + "."

    def _what_fits(self, spec: TrialSpec, config: Mapping[str, Any]) -> Iterator[str]:
        assert self._capacity is not None
        for change, other, sizes in alternatives_of(spec, devices=self._capacity.devices):
            found = self._largest(other, config, sizes, warns=False)
            if found is not None and self._fits(found):
                batch = "" if change else batching(spec, found.micro_batch)
                yield f"{change or batch} ({in_words(found.device_memory_bytes)})"
