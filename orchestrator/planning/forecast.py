"""Forecasts: what a trial will need on the sweep's hardware, whether it fits, and what would.

A prediction (predictions.py) is corrected by what finished trials took (correction.py) and held
against the capacity (capacity.py). An evaluation and an automatic batch size shrink where they
do not fit, as the worker lets them, before a trial is said not to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from orchestrator.formatting import in_words
from orchestrator.planning.alternatives import alternatives_of, batching, micro_batch_sizes
from orchestrator.planning.calibration import Calibration
from orchestrator.planning.capacity import CUDA, Capacity
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
    """As `config_of`, without asking the hub."""
    found: Mapping[str, Any] | None = model_config(
        spec.model_source, spec.revision, ask_the_hub=False
    )
    return found


class PendingEstimate(Protocol):
    """What is asked for predictions: `orchestrator.planning.simulator.SimulatorClient`."""

    def of(self, request: Mapping[str, Any]) -> TrialEstimate | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Forecast:
    """What one trial will need; bytes after correction. `refusal`: why it can't run, or None."""

    told: TrialEstimate
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
        prediction = self.told.prediction
        return {
            "train_memory_bytes": self.train_memory_bytes,
            "eval_memory_bytes": self.eval_memory_bytes,
            "device_memory_bytes": self.device_memory_bytes,
            "uncorrected_train_memory_bytes": self.uncorrected_train_memory_bytes,
            "uncorrected_eval_memory_bytes": prediction.eval_memory_bytes,
            "train_flops": self.told.train_flops,
            "eval_flops": self.told.eval_flops,
            "training": asdict(prediction.training),
            "forward": asdict(prediction.forward),
            "device": self.device,
            "micro_batch": self.micro_batch,
            "eval_batch": self.eval_batch,
            "knows_lengths": self.told.knows_lengths,
        }


@dataclass(frozen=True)
class _Attempt:
    """A spec, with the rows at once that are tried for it."""

    spec: TrialSpec
    micro_batch: int | None
    eval_batch: int


class Forecaster:
    """Forecasts of one start of a sweep, made one after another beside the driver's own work.

    `is_ready` asks for a forecast and says whether it is there; `of` waits for it. None stands for
    what can't be predicted. Without a capacity nothing is refused.
    """

    def __init__(
        self,
        predictions: PendingEstimate,
        *,
        capacity: Capacity | None,
        device: str,
        model_config: ModelConfig = config_of,
        calibration: Calibration | None = None,
    ) -> None:
        self._predictions = predictions
        self._capacity = capacity
        self._device = device
        self._model_config = model_config
        self.calibration = calibration or Calibration()
        self._asked: dict[str, Future[Forecast | None]] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forecast")

    @property
    def capacity(self) -> Capacity | None:
        return self._capacity

    def ask(self, spec: TrialSpec) -> Future[Forecast | None]:
        """The forecast, when it will have been made."""
        if spec.trial_id not in self._asked:
            self._asked[spec.trial_id] = self._pool.submit(self._made, spec)
        return self._asked[spec.trial_id]

    def is_ready(self, spec: TrialSpec) -> bool:
        return self.ask(spec).done()

    def of(self, spec: TrialSpec) -> Forecast | None:
        return self.ask(spec).result()

    def known(self, spec: TrialSpec) -> Forecast | None:
        """The forecast if it has been made; never asks for one."""
        asked = self._asked.get(spec.trial_id)
        return asked.result() if asked is not None and asked.done() else None

    def learn(self, record: TrialRecord) -> bool:
        """What a trial took, if it has finished; forecasts that this changes are made anew."""
        knobs = record.spec.knobs
        before = self.calibration.factors(knobs, self._device)
        self.calibration.learn(record)
        changed = self.calibration.factors(knobs, self._device) != before
        if changed:
            self._asked = {name: made for name, made in self._asked.items() if not made.done()}
        return changed

    def close(self) -> None:
        """Ends what is being made; nothing is forecast any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._predictions.close()

    def _made(self, spec: TrialSpec) -> Forecast | None:
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
        """With as many rows at once as fit, where the trial leaves that open; else as it is."""
        if spec.knobs.get("batch_size") != AUTO:
            given = spec.knobs.get("batch_size")
            return self._judging_what_fits(spec, config, None if given is None else int(given))
        return self._largest(
            spec, config, micro_batch_sizes(int(spec.knobs["effective_batch_size"]))
        )

    def _largest(
        self, spec: TrialSpec, config: Mapping[str, Any], sizes: list[int]
    ) -> Forecast | None:
        """With the largest of `sizes`, falling, that fits; else with the smallest."""
        low, high = 0, len(sizes) - 1
        found = None
        while low < high:
            middle = (low + high) // 2
            tried = self._judging_what_fits(spec, config, sizes[middle])
            if tried is None:
                return None
            if self._fits(tried):
                found, high = tried, middle
            else:
                low = middle + 1
        if found is not None and found.micro_batch == sizes[low]:
            return found
        return self._judging_what_fits(spec, config, sizes[low])

    def _judging_what_fits(
        self, spec: TrialSpec, config: Mapping[str, Any], micro_batch: int | None
    ) -> Forecast | None:
        """With half as many questions at once, and again, where a judged batch does not fit."""
        trying = _Attempt(spec, micro_batch, spec.execution.eval_batch_size)
        while True:
            found = self._tried(trying, config)
            if found is None or self._judging_fits(found) or trying.eval_batch == 1:
                return found
            trying = replace(trying, eval_batch=(trying.eval_batch + 1) // 2)

    def _tried(self, trying: _Attempt, config: Mapping[str, Any]) -> Forecast | None:
        spec = trying.spec
        asked = {"config": dict(config), "trial": spec.to_json(), "device": self._device}
        told = self._predictions.of(
            {**asked, "micro_batch": trying.micro_batch, "eval_batch": trying.eval_batch}
        )
        return None if told is None else self._corrected(told, trying)

    def _corrected(self, told: TrialEstimate, trying: _Attempt) -> Forecast:
        spec = trying.spec
        factors = self.calibration.factors(spec.knobs, self._device)
        alone = sharded_train_bytes(told.prediction, spec.knobs)
        train = round(alone * factors.train)
        evaluation = round(sharded_eval_bytes(told.prediction, spec.knobs) * factors.evaluation)
        kept = kept_bytes(told.prediction, spec.knobs)
        return Forecast(
            told=told,
            device=self._device,
            train_memory_bytes=train,
            eval_memory_bytes=evaluation,
            device_memory_bytes=max(train, evaluation + kept) + _constants(told),
            uncorrected_train_memory_bytes=alone,
            micro_batch=trying.micro_batch,
            eval_batch=trying.eval_batch,
        )

    def _fits(self, forecast: Forecast) -> bool:
        return self._capacity is None or forecast.device_memory_bytes <= self._capacity.bytes

    def _judging_fits(self, forecast: Forecast) -> bool:
        """Whether it fits, or what does not is the training."""
        most = forecast.train_memory_bytes + _constants(forecast.told)
        return self._fits(forecast) or forecast.device_memory_bytes <= most

    def _too_many_workers(self, spec: TrialSpec) -> str | None:
        """Each takes a GPU of its own, and Ray would wait for what never comes."""
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
            f"{_named(spec)} needs {words}; {in_words(available)} are available "
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
            found = self._largest(other, config, sizes)
            if found is not None and self._fits(found):
                rows = "" if change else batching(spec, found.micro_batch)
                yield f"{change or rows} ({in_words(found.device_memory_bytes)})"


def _named(spec: TrialSpec) -> str:
    knobs = spec.knobs
    model = Path(str(knobs["model"])).name
    if not spec.method.trains:
        return f"Judging {model} ({knobs['quantization']})"
    shape = f"batch_size {knobs['batch_size']}, sequence_length {knobs['sequence_length']}"
    return f"{spec.method.activity} of {model} ({knobs['quantization']}, {shape})"


def _states(told: TrialEstimate) -> int:
    """What of the training stays on the device while it is judged."""
    term = told.prediction.terms.get("optimizer_state")
    return 0 if term is None else term.bytes


def _constants(told: TrialEstimate) -> int:
    """What the device takes besides tensors."""
    prediction = told.prediction
    tensors = max(prediction.train_memory_bytes, prediction.eval_memory_bytes + _states(told))
    return prediction.device_memory_bytes - tensors
