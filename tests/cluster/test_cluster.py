"""A cluster from `ray up` to `ray down`, on three test hosts and a laptop with their own addresses.

It uses clusters/local.yaml as shipped, except for the values that its user fills in, the CPUs that
Ray counts on this one machine, and an existing environment (the hosts have no internet).

`make cluster-test` runs it. Set CLUSTER_TEST_STAND_IN=1 if sshd and rsync are not installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.doctor.cluster_file import FILL_IN
from tests.cluster.hosts import SHARED_AT, Host, Hosts, reason_to_skip, wait_for
from tests.conftest import REPOSITORY
from tests.orchestrator import tiny_sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip()),
]
TRIALS = 8
RAY = re.compile(r"raylet|gcs_server|ray::|/ray/|bin/ray ")
SPACE = {
    **tiny_sweep.mapping("base_models/small"),
    "data": {
        "generated": {"kinds": ["latest"], "train": 512, "selection": 16, "report": 4, "seed": 5}
    },
    "budget": {"train_examples": 512, "eval_examples": 16, "seed": 3},
    "search": {"algorithm": "random", "trials": TRIALS},
    "scheduler": "none",
    "resources": {"cpus_per_trial": 1, "concurrent_trials": 2},
    "execution": {"max_new_tokens": 4, "eval_batch_size": 16, "checkpoint_minutes": 0.02},
}
SPACE["space"] = {
    **SPACE["space"],
    "quantization": "none",
    "rank": [2, 4, 8, 16],
    "alpha": [8, 16],
    "sequence_length": 128,
}


@dataclass
class Cluster:
    """The hosts, and the commands that the laptop runs on them."""

    hosts: Hosts

    @property
    def laptop(self) -> Host:
        return self.hosts.all["laptop"]

    @property
    def head(self) -> Host:
        return self.hosts.all["head"]

    @property
    def workers(self) -> list[Host]:
        return [self.hosts.all["one"], self.hosts.all["two"]]

    def shell(self, command: str, *, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a command on the laptop, in the project's folder; asserts exit code 0."""
        began = time.monotonic()
        done = self.laptop.run(*_in_project(command), seconds=seconds)
        print(f"{time.monotonic() - began:6.0f} s  {command}", flush=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done

    def on_head(self, command: str) -> str:
        """The command line that runs a command on the head by `ray exec`."""
        return f"ray exec ~/local.yaml 'cd ~/sweep && {command}'"

    def start_sweep(self, name: str) -> subprocess.Popen[bytes]:
        log = (self.hosts.folder / f"{name}.log").open("ab")
        command = self.on_head(
            f"python -m orchestrator.sweep {SHARED_AT}/space.yaml --name {name} "
            f"--storage {SHARED_AT}/runs --address auto"
        )
        print(f"          {command}", flush=True)
        words = self.laptop.command(*_in_project(command))
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self, name: str) -> str:
        return (self.hosts.folder / f"{name}.log").read_text(errors="replace")

    def run(self, name: str) -> Path:
        return self.hosts.shared / "runs" / name

    def alive(self) -> int:
        """How many nodes Ray counts as alive."""
        done = self.head.run("bash", "-c", COUNT, seconds=60)
        counts = re.findall(r"^alive (\d+)$", done.stdout, re.MULTILINE)
        return int(counts[-1]) if counts else 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Running hosts without Ray; their files are in /var/tmp, as each host has its own /tmp."""
    with tempfile.TemporaryDirectory(prefix="sweep-hosts-", dir="/var/tmp") as folder:
        names = ("laptop", "head", "one", "two")
        with Hosts(Path(folder) / "hosts", names) as hosts:
            made = Cluster(hosts)
            _fill_in(made)
            (hosts.shared / "space.yaml").write_text(yaml.safe_dump(SPACE))
            (made.head.disk / "count_nodes.py").write_text(COUNT_NODES)
            yield made


def test_a_cluster_from_up_to_down(cluster: Cluster) -> None:
    cluster.shell("ray get-auth-token --generate")
    cluster.shell("python -m orchestrator.doctor --cluster ~/local.yaml")
    _bring_up(cluster)
    _the_doctor_passes(cluster)
    _a_sweep_runs_on_both_workers(cluster)
    _a_worker_is_switched_off_in_the_middle(cluster)
    _the_head_is_switched_off_and_the_same_command_resumes(cluster)
    _down_leaves_nothing(cluster)


def _bring_up(cluster: Cluster, *, nodes: int = 3) -> None:
    cluster.shell("ray up -y ~/local.yaml", seconds=300)
    wait_for(lambda: cluster.alive() == nodes, seconds=300, what=f"{nodes} nodes")


def _the_doctor_passes(cluster: Cluster) -> None:
    command = f"python -m orchestrator.doctor --address auto --storage {SHARED_AT}/runs"
    done = cluster.shell(cluster.on_head(command), seconds=500)
    print(done.stdout, flush=True)
    assert "2 of 3 are on other machines" in " ".join(done.stdout.split())
    assert all(f"{worker.address} " in done.stdout for worker in cluster.workers)


def _a_sweep_runs_on_both_workers(cluster: Cluster) -> None:
    _ends_well(cluster, "both", cluster.start_sweep("both"))
    names = {worker.name for worker in cluster.workers}
    assert set(_where_trials_ran(cluster.run("both"))) == names
    _mlflow_holds_each_run_once(cluster, "both")


def _a_worker_is_switched_off_in_the_middle(cluster: Cluster) -> None:
    sweep = cluster.start_sweep("worker")
    _await_middle(cluster, "worker", sweep)
    cluster.workers[1].stop()
    _ends_well(cluster, "worker", sweep)
    _mlflow_holds_each_run_once(cluster, "worker")


def _the_head_is_switched_off_and_the_same_command_resumes(cluster: Cluster) -> None:
    sweep = cluster.start_sweep("head")
    _await_middle(cluster, "head", sweep)
    cluster.head.stop()
    sweep.wait(timeout=120)
    done = _ended(cluster.run("head"))
    assert 0 < len(done) < TRIALS + 1, "it was to be stopped in the middle"
    cluster.head.start()
    cluster.workers[1].start()
    _bring_up(cluster)
    _ends_well(cluster, "head", cluster.start_sweep("head"))
    assert "Resuming:" in cluster.said("head")
    now = _ended(cluster.run("head"))
    assert {name: now[name] for name in done} == done, "a trial that had ended was run again"
    _mlflow_holds_each_run_once(cluster, "head")


def _down_leaves_nothing(cluster: Cluster) -> None:
    cluster.shell("ray down -y ~/local.yaml", seconds=180)

    def left() -> list[str]:
        hosts = (cluster.head, *cluster.workers)
        lines = [line for host in hosts for line in host.processes()]
        return [line for line in lines if RAY.search(line) or "mlflow" in line]

    wait_for(lambda: not left(), seconds=180, what="Ray and MLflow to end on every host")


def _await_middle(cluster: Cluster, name: str, sweep: subprocess.Popen[bytes]) -> None:
    """Waits until some trials have ended and others have not."""

    def in_the_middle() -> bool:
        assert sweep.poll() is None, cluster.said(name)[-6000:]
        return len(_ended(cluster.run(name))) >= 3

    wait_for(in_the_middle, seconds=400, what="the middle of a sweep")
    assert len(_ended(cluster.run(name))) < TRIALS


def _ends_well(cluster: Cluster, name: str, sweep: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    code = sweep.wait(timeout=580)
    print(f"{time.monotonic() - began:6.0f} s  until sweep {name} had ended", flush=True)
    assert code == 0, cluster.said(name)[-6000:]
    roles = Counter(
        (summary["role"], summary["state"])
        for summary in tiny_sweep.summaries(cluster.run(name)).values()
    )
    assert roles == {("trial", "finished"): TRIALS, ("baseline", "finished"): 1}


def _ended(run: Path) -> dict[str, int]:
    """The time at which each ended trial's summary was written, by trial."""
    files = (run / "trials").glob("*/summary.json")
    return {file.parent.name: file.stat().st_mtime_ns for file in files}


def _where_trials_ran(run: Path) -> Counter[str]:
    """The number of trials by host, from the trials' owner.json."""
    return Counter(
        json.loads(file.read_text())["host"] for file in (run / "trials").glob("*/owner.json")
    )


def _mlflow_holds_each_run_once(cluster: Cluster, name: str) -> None:
    """Checks the runs that the laptop reads from MLflow at the head's address."""
    uri = f"http://{cluster.head.address}:5000"
    done = cluster.shell(f"python ~/read_mlflow.py {uri} {name}")
    told: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    trials = Counter(run["trial_id"] for run in told if run["role"] != "sweep")
    assert trials == Counter(list(_ended(cluster.run(name))))
    assert sum(run["role"] == "sweep" for run in told) == 1
    assert {run["status"] for run in told} == {"FINISHED"}


def _fill_in(cluster: Cluster) -> None:
    """Fills in clusters/local.yaml as its user does, and writes scripts for the tests."""
    values = iter(
        [
            cluster.head.address,
            '"\n    - "'.join(worker.address for worker in cluster.workers),
            "root",
            "~/.ssh/key",
            f"{SHARED_AT}/mlflow-artifacts",
        ]
    )
    _, name, shipped = (
        (REPOSITORY / "clusters" / "local.yaml").read_text().partition("cluster_name")
    )
    replace: Callable[[Any], str] = lambda found: next(values)  # noqa: E731
    filled = FILL_IN.sub(replace, name + shipped)
    counted = filled.replace("ray start --head", "ray start --head --num-cpus=0")
    counted = counted.replace("ray start --address", "ray start --num-cpus=1 --address")
    (cluster.laptop.disk / "local.yaml").write_text(counted)
    (cluster.laptop.disk / "read_mlflow.py").write_text(READ_MLFLOW)


def _in_project(command: str) -> list[str]:
    own = f"export PATH=~/sweep-env/bin:$PATH; cd {REPOSITORY} && {command}"
    return ["bash", "-c", own]


COUNT = "source ~/.bashrc; cd ~/sweep && python ~/count_nodes.py"
COUNT_NODES = """\
import ray

ray.init(address="auto", log_to_driver=False)
print("alive", sum(node["Alive"] for node in ray.nodes()))
"""
READ_MLFLOW = """\
import json, sys
from mlflow import MlflowClient

client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name(sys.argv[2])
runs = client.search_runs([experiment.experiment_id])
print(json.dumps([{**run.data.tags, "status": run.info.status} for run in runs]))
"""
