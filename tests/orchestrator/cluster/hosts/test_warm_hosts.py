"""Warm hosts on a real Ray, by counting loads: trials run where their base is, hosts persist."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.cluster.hosts.host_scheduler import start_host_scheduler
from orchestrator.cluster.hosts.host_shape import HostShape
from tests.orchestrator.tiny_sweep import mapping, summaries, sweep, write_space
from tests.tiny_models import make_llama
from tests.tiny_trials import make_spec
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.trial_folder import TrialFolder

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Facts:
    """What a host has done so far, and whether it is the same as before."""

    loads: int
    process: int
    modules: int
    data: list[int]  # identities of what it has tokenized


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture
def scheduler() -> Iterator[Any]:
    """Two hosts of one CPU each."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="warm")
    try:
        actor = start_host_scheduler("warm", HostShape(1, 0, 2), provenance={})
        ray.get(actor.open.remote())
        yield actor
    finally:
        ray.shutdown()


def test_a_trial_goes_to_the_host_that_has_its_base(
    scheduler: Any, model: Path, tmp_path: Path
) -> None:
    plain, nf4 = make_spec(model, rank=2), make_spec(model, rank=2, quantization="nf4")
    hosts = [acquire(scheduler, spec) for spec in (plain, nf4)]
    for host, spec in zip(hosts, (plain, nf4), strict=True):
        run(host, spec, tmp_path)
        release(scheduler, spec)
    for rank in (3, 4, 5):
        for quantization in ("nf4", "none"):
            spec = make_spec(model, rank=rank, quantization=quantization)
            run(acquire(scheduler, spec), spec, tmp_path)
            release(scheduler, spec)
    assert [facts(host).loads for host in hosts] == [1, 1]

    busy = make_spec(model, rank=6)
    assert acquire(scheduler, busy) == hosts[0]
    before = facts(hosts[1])
    run(acquire(scheduler, make_spec(model, rank=7)), make_spec(model, rank=7), tmp_path)
    after = facts(hosts[1])
    assert after.loads == before.loads + 1
    assert (after.process, after.modules) == (before.process, before.modules)
    assert after.data == before.data  # the same tokenizer: what it read is read already


def test_a_sweep_on_one_base_loads_it_once_per_host(model: Path, tmp_path: Path) -> None:
    value = mapping(str(model))
    value["space"] |= {"quantization": "nf4", "rank": [2, 3, 4, 5, 6]}
    value["search"]["trials"] = 5
    value["scheduler"] = "none"
    done = sweep(write_space(tmp_path / "tiny.yaml", value), tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    ended = summaries(tmp_path / "runs" / "tiny")
    assert len(ended) == 6  # with the untrained baseline
    # a trial's summary says how long its base took to load: trials of one load say the same
    assert len({summary["seconds"]["load"] for summary in ended.values()}) <= 2


def test_a_sweep_on_two_bases_seldom_changes_the_base_of_a_host(
    model: Path, tmp_path: Path
) -> None:
    value = mapping(str(model))
    value["space"] |= {"quantization": ["none", "nf4"], "rank": [2, 3, 4, 5, 6, 7]}
    value["search"] |= {"trials": 12, "algorithm": "grid"}
    value["scheduler"] = "none"
    done = sweep(write_space(tmp_path / "tiny.yaml", value), tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    ended = summaries(tmp_path / "runs" / "tiny")
    assert len(ended) == 14  # with the untrained baselines
    loads = len({summary["seconds"]["load"] for summary in ended.values()})
    print(f"{loads} loads of 2 bases on 2 hosts for 14 trials")
    assert loads <= 6


def acquire(scheduler: Any, spec: TrialSpec) -> Any:
    return ray.get(scheduler.acquire.remote(spec.trial_id, spec.base_key))


def release(scheduler: Any, spec: TrialSpec) -> None:
    ray.get(scheduler.release.remote(spec.trial_id))


def run(host: Any, spec: TrialSpec, folder: Path) -> None:
    place = TrialFolder(folder / spec.trial_id)
    place.write_spec(spec, {})
    assert ray.get(host.start.remote(str(place.path))) == []
    while ray.get(host.next.remote()).kind != "finished":
        pass


def facts(host: Any) -> Facts:
    def look(self: Any) -> tuple[int, int, int, list[int]]:
        import sys

        data = [id(split) for data in self._data_cache.values() for split in data.splits.values()]
        return self.loads, os.getpid(), len(sys.modules), sorted(data)

    return Facts(*ray.get(host.__ray_call__.remote(look)))
