"""System metrics beside a trial's events: sampled once, and part of no result."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.tiny_trials import make_spec, make_trial
from trainables.resources.system_metrics import SystemSampler
from trainables.spec.events import Event
from trainables.training.loop import train

NAMES = {
    "cpu_utilization_percentage",
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
}


def test_the_nodes_cpu_and_memory_by_mlflows_names() -> None:
    sample = SystemSampler()
    found = sample()
    assert found.keys() >= NAMES
    assert 0 <= found["cpu_utilization_percentage"] <= 100
    assert 0 < found["system_memory_usage_percentage"] <= 100
    assert found["system_memory_usage_megabytes"] > 10


def test_a_sample_costs_next_to_nothing() -> None:
    sample, seconds = SystemSampler(), []
    for _ in range(50):
        started = time.perf_counter()
        sample()
        seconds.append(time.perf_counter() - started)
    assert statistics.median(seconds) < 0.005


def test_each_event_of_a_trial_has_one_sample_and_no_result_has_any(
    tmp_path: Path, tiny_llama: Path
) -> None:
    calls = 0

    def sample() -> Mapping[str, float]:
        nonlocal calls
        calls += 1
        return {"cpu_utilization_percentage": float(calls)}

    trial = dataclasses.replace(make_trial(make_spec(tiny_llama), tmp_path), sample=sample)
    events = list(train(trial))
    asked = [event.system for event in events if event.kind != "finished"]
    assert asked == [{"cpu_utilization_percentage": place + 1.0} for place in range(len(asked))]
    assert calls == len(asked)
    summary = trial.folder.summary()
    assert summary is not None
    assert not [name for name in summary["metrics"] if "utilization" in name]
    assert [event["system"] for event in summary["history"]] == asked


def test_an_event_of_before_has_none() -> None:
    written = Event("progress", 1, 8, {"train_loss": 1.0}).to_json()
    del written["system"]
    assert Event.from_json(written).system == {}


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, trainables.resources.system_metrics; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "transformers"} & set(done.stdout.split())
