"""The doctor's trial: one real trial of a shipped model, of some seconds, on every node.

It needs all that a trial of a sweep needs: imports, base, data, optimizer steps, a checkpoint, an
evaluation and the storage; on a node with a GPU it runs on the GPU.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.cluster.nodes import Node
from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SweepConfig
from orchestrator.doctor.checks import CheckContext
from orchestrator.doctor.findings import Finding
from orchestrator.planning.planner import Planner
from trainables.storage.run_folder import RunFolder

MODEL = "base_models/small"
IMPORT_SECONDS = 300.0  # a host's imports; some seconds on idle cores, minutes on busy ones
TRIAL_SECONDS = 120.0
SPACE: Mapping[str, Any] = {
    "task": "finqa",
    "data": {
        "generated": {"kinds": ["latest"], "train": 64, "selection": 8, "report": 2, "seed": 1}
    },
    "space": {
        "model": MODEL,
        "quantization": "none",
        "rank": 2,
        "alpha": 4,
        "learning_rate": 1.0e-3,
        "batch_size": 4,
        "prompt": "statements",
        "sequence_length": 128,
    },
    "budget": {"train_examples": 64, "eval_examples": 8, "seed": 1},
    "search": {"algorithm": "random", "trials": 1},
    "scheduler": "none",
    "execution": {"max_new_tokens": 4, "eval_batch_size": 8},
}


def check_sweep(context: CheckContext) -> Finding:
    """Trains one small trial to its end on every node that has a CPU for it."""
    from ray.exceptions import RayError

    able = [node for node in context.nodes if node.cpus >= 1]
    if not able:
        return Finding("sweep", None, "no node has a CPU to spare for one")
    place = f"{context.storage}/doctor-{uuid.uuid4().hex[:12]}"
    try:
        hosts = {node.node_id: _start_host(node) for node in able}
        took, faults = [], []
        for node in able:
            try:
                run = RunFolder.at(f"{place}-{node.node_id[:12]}")
                seconds, device = _train(hosts[node.node_id], run, node)
            except (RayError, RuntimeError, OSError) as error:
                said = str(error).strip().splitlines() or [type(error).__name__]
                faults.append(f"{node.name}: {said[-1][:300]}")
            else:
                took.append(f"{node.name} {seconds:.1f} s on {device}")
            context.notify(f"{len(took) + len(faults)} of {len(able)} nodes")
    finally:
        _end(hosts.values())
        for node in able:
            RunFolder.at(f"{place}-{node.node_id[:12]}").discard()
    if faults:
        fix = "Its reason is above; a node that does not answer may be busy with another sweep."
        return Finding("sweep", False, "; ".join(faults), fix)
    return Finding("sweep", True, f"a trial to its end on {', '.join(took)}")


def _start_host(node: Node) -> Any:
    """A host pinned to the node, with a GPU if the node has one."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from trainables.workers.host import Host

    here = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    gpus = 1 if node.gpus >= 1 else 0
    return Host.options(num_cpus=1, num_gpus=gpus, scheduling_strategy=here).remote({})


def _train(host: Any, run: RunFolder, node: Node) -> tuple[float, str]:
    """The seconds of a trial from start to end, without imports, and its device.

    Raises RuntimeError if the trial fails, or does not use the GPU of a node that has one.
    """
    import ray

    described = ray.get(host.warm_up.remote(), timeout=IMPORT_SECONDS)
    if node.gpus >= 1 and described["device_type"] != "cuda":
        raise RuntimeError("torch sees no GPU there: its build or the driver does not fit")
    planner = Planner(_config(), device=described)
    planner.prepare()
    spec = planner.spec(_configuration())
    folder = run.trial(spec.trial_id)
    folder.write_spec(spec, {})
    began = time.monotonic()
    _answered(ray.get(host.start.remote(folder.place), timeout=TRIAL_SECONDS))
    while time.monotonic() - began < TRIAL_SECONDS:
        event = _answered(ray.get(host.next.remote(), timeout=TRIAL_SECONDS))
        if event.kind == "finished":
            folder.pull()
            if folder.summary() is None:
                raise RuntimeError(f"what it wrote to {folder.place} is not there for this process")
            return time.monotonic() - began, str(described["device"])
    raise RuntimeError(f"the trial was not done after {TRIAL_SECONDS:.0f} s")


def _answered(answer: Any) -> Any:
    from trainables.workers.outcomes import Failure, Interruption

    if isinstance(answer, Failure):
        raise RuntimeError(answer.reason)
    if isinstance(answer, Interruption):
        raise RuntimeError("the trial was interrupted")
    return answer


def _config() -> SweepConfig:
    return from_mapping(SPACE)


def _configuration() -> dict[str, Any]:
    """The only configuration of SPACE, as a searcher returns it."""
    return dict(SPACE["space"])


def _end(hosts: Iterable[Any]) -> None:
    import ray

    for host in hosts:
        ray.kill(host)
