"""Checks of a running cluster: each inspects all nodes and returns a Finding."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.nodes import Node, NodeResult, autoscaler_node_groups, run_on_all_nodes
from orchestrator.cluster.storage_check import inspect_storage, unshared_reason
from orchestrator.config.sections import SweepConfig
from orchestrator.doctor.findings import Finding
from orchestrator.doctor.node_probes import (
    node_deepspeed,
    node_devices,
    node_models,
    node_reaches,
    node_versions,
)
from orchestrator.planning.planner import Planner
from orchestrator.planning.simulator import SimulatorClient
from orchestrator.preflight import notes, preflight, refusals
from orchestrator.space.constraints import cells, surviving
from orchestrator.tracking.sqlite_store import refuse_shared_sqlite, sqlite_file
from trainables.errors import InputError
from trainables.preflight.findings import Findings
from trainables.storage.object_store import is_url

Notify = Callable[[str], None]
_SAME = "Bring all nodes to one version: run `ray up` again with the cluster's file."


@dataclass(frozen=True)
class CheckContext:
    """What the checks inspect: nodes, storage, tracking store, and what one search space needs."""

    nodes: Sequence[Node]
    storage: str  # a folder or a URL
    tracking_uri: str
    config: SweepConfig
    notify: Notify = lambda line: None

    @property
    def models(self) -> list[str]:
        """The models of the space, in its order, by their names there."""
        return list(dict.fromkeys(str(cell.model) for cell in cells(self.config.space)))

    @property
    def uses_deepspeed(self) -> bool:
        """Whether a trial of the space has a ZeRO stage."""
        stages = surviving(self.config.space, self.config.exclude, ("zero_stage",))
        return any(each.get("zero_stage") for each in stages)

    def ask(
        self, work: Callable[..., Any], *arguments: Any, seconds: float = 120
    ) -> list[NodeResult]:
        """The result of `work(*arguments)` on each node, or why there is none."""
        return run_on_all_nodes(self.nodes, work, *arguments, seconds=seconds, notify=self.notify)


def check_nodes(context: CheckContext) -> Finding:
    """Lists the nodes with their CPUs and GPUs, and those that have died."""
    import ray

    lines = [f"{node.name} ({node.cpus:g} CPUs, {node.gpus:g} GPUs)" for node in context.nodes]
    dead = [node["NodeManagerAddress"] for node in ray.nodes() if not node["Alive"]]
    said = f"{len(lines)} up: {', '.join(lines)}"
    if dead:
        said += f"; gone since the cluster's start: {', '.join(sorted(set(dead)))}"
    may_come = autoscaler_node_groups()
    if may_come:
        said += f"; the autoscaler may start {len(may_come)} more, which are not checked now"
    room = any(node.cpus >= 1 for node in context.nodes) or bool(may_come)
    fix = "No node has a CPU for trials now: see that workers join, or that an autoscaler runs."
    return Finding("nodes", room, said, fix)


def check_gpus(context: CheckContext) -> Finding:
    """Checks that Ray counts as many GPUs on each node as its operating system has."""
    answers = context.ask(node_devices)
    wrong = [
        f"{each.node.name}: Ray counts {each.node.gpus:g}, its system has {each.value}"
        for each in answers
        if not each.error and each.value != each.node.gpus
    ]
    fix = (
        "Look at nvidia-smi on that node. Without a driver install one; else `ray start` saw other "
        "GPUs (CUDA_VISIBLE_DEVICES, --num-gpus): start Ray there again."
    )
    said = _silent_nodes(answers) or "; ".join(wrong)
    if said:
        return Finding("GPUs", False, said, fix)
    have = [f"{node.name} {node.gpus:g}" for node in context.nodes if node.gpus]
    return Finding("GPUs", True, ", ".join(have) or "none now: trials run on CPUs")


def check_versions(context: CheckContext) -> Finding:
    """Checks that all nodes have equal versions of Python, the packages and the project."""
    answers = context.ask(node_versions)
    said = _silent_nodes(answers) or "; ".join(differing(answers))
    if said:
        return Finding("versions", False, said, _SAME)
    own: Mapping[str, str] = answers[0].value
    shown = ", ".join(f"{name} {own[name]}" for name in ("python", "ray", "torch", "transformers"))
    return Finding("versions", True, f"equal on all nodes: {shown}, ...")


def differing(answers: Sequence[NodeResult]) -> Iterator[str]:
    """One line per package for the nodes whose version is not the most common one."""
    for package in answers[0].value:
        versions = {each.node.name: each.value.get(package, "none") for each in answers}
        usual = Counter(versions.values()).most_common(1)[0][0]
        others = [f"{name} has {has}" for name, has in versions.items() if has != usual]
        if others:
            yield f"{package}: {', '.join(others)}, the others {usual}"


def check_shared_storage(context: CheckContext) -> Finding:
    """Checks that all nodes read and write the storage, and that it is one and the same."""
    storage = context.storage
    try:
        views = inspect_storage(storage, context.nodes)
    except OSError as error:
        fix = "Give --storage a folder that you may write."
        return Finding("storage", False, f"{storage}: {error.strerror or error} here", fix)
    said = unshared_reason(storage, views)
    if said:
        reason, _, fix = said.partition("). ")
        return Finding("storage", False, f"{reason})", fix)
    elsewhere = sum(not view.same_machine for view in views)
    said = f"{storage}: one folder, written and read by every node"
    return Finding("storage", True, f"{said}; {elsewhere} of {len(views)} are on other machines")


def check_mlflow(context: CheckContext) -> Finding:
    """Checks that this process reaches the tracking store, and that SQLite is on a local disk."""
    uri = context.tracking_uri
    if uri.startswith(("http://", "https://")):
        why = node_reaches(f"{uri.rstrip('/')}/health")
        fix = "Start it on the head: bash clusters/serve_mlflow.sh STORAGE/mlflow-artifacts"
        return Finding("MLflow", not why, f"{uri}: {why or 'answers'}", fix)
    database = sqlite_file(uri)
    if database is None:
        return Finding("MLflow", None, f"{uri.partition(':')[0]} store: not checked")
    is_folder = not is_url(context.storage)
    shared = Path(context.storage) if is_folder and _is_on_several_machines(context) else None
    try:
        refuse_shared_sqlite(uri, shared_folder=shared)
    except InputError as error:
        reason, _, fix = error.messages[0].partition(" Use ")
        return Finding("MLflow", False, reason, f"Use {fix}")
    folder = next(parent for parent in database.parents if parent.exists())
    fine = os.access(folder, os.W_OK)
    return Finding("MLflow", fine, f"{uri}: on this machine's disk", f"Let {folder} be written.")


def check_models(context: CheckContext) -> Finding:
    """Checks that all nodes find each model, on disk or at the hub, with equal content."""
    if not context.models:
        return Finding("models", None, "the space names none")
    answers = context.ask(node_models, list(context.models), seconds=240)
    said = _silent_nodes(answers) or "; ".join(_absent(answers) or differing(answers))
    fix = (
        "For the hub: network, and a token for gated models (HF_TOKEN, or file_mounts of "
        "~/.cache/huggingface/token). Offline: a local folder, or a snapshot in every node's cache."
    )
    if said:
        return Finding("models", False, said, fix)
    names = ", ".join(Path(name).name if "/" not in name else name for name in context.models)
    return Finding("models", True, f"every node has {names}")


def check_space(context: CheckContext) -> Finding:
    """Checks what every trial of the space would need of its models and data, on this machine."""
    planner = Planner(context.config)
    simulator = SimulatorClient(cache=None, warn=context.notify, offline=True)
    simulator.start()
    try:
        planner.prepare(ask_the_hub=False)
        found = preflight(planner, simulator, cache=None, say=context.notify)
    except InputError as error:
        found = Findings(faults=list(error.messages))
    finally:
        simulator.close()
    if found is None:
        return Finding("models & data", None, "not looked at: the process that does so has ended")
    faults = list(refusals(found))
    if faults:
        fix = "Each reason above says what to do; a sweep of this space refuses to start."
        return Finding("models & data", False, " ".join(faults), fix)
    said = " ".join(["nothing that would fail every trial.", *notes(found)])
    return Finding("models & data", True, said)


def check_deepspeed(context: CheckContext) -> Finding:
    """Checks that DeepSpeed's optimizers can be built on every node, if the space needs them."""
    answers = context.ask(node_deepspeed, seconds=180)
    silent = _silent_nodes(answers)
    if silent:
        return Finding("DeepSpeed", False, silent, "See that node's logs.")
    if not any(each.value["version"] for each in answers):
        passed = False if context.uses_deepspeed else None
        said = "not installed; only trials with a zero_stage use it"
        return Finding("DeepSpeed", passed, said, "Install deepspeed on every node.")
    wrong = [fault for each in answers for fault in _kernel_faults(each)]
    if wrong and not context.uses_deepspeed:
        said = f"{'; '.join(wrong)}: this space does not need it"
        return Finding("DeepSpeed", None, said)
    fix = "Install g++ and ninja on that node, and on GPU nodes the CUDA toolkit (nvcc)."
    versions = {each.value["version"] for each in answers}
    return Finding(
        "DeepSpeed", not wrong, "; ".join(wrong) or f"{versions.pop()}: its ops can be built", fix
    )


def _kernel_faults(answer: NodeResult) -> Iterator[str]:
    name, found = answer.node.name, answer.value
    if not found["version"]:
        yield f"{name}: not installed"
        return
    yield from (f"{name}: no {tool}" for tool in found["lacks"])
    wanted = ("cpu_adam", "fused_adam") if answer.node.gpus else ("cpu_adam",)
    yield from (f"{name}: {op} can't be built" for op in wanted if not found["ops"].get(op))


def _absent(answers: Sequence[NodeResult]) -> list[str]:
    return [
        f"{each.node.name}: {found[1:]}"
        for each in answers
        for found in each.value.values()
        if found.startswith("!")
    ]


def _silent_nodes(answers: Sequence[NodeResult]) -> str:
    """The nodes on which the check could not run, each with the reason."""
    return "; ".join(f"{each.node.name}: {each.error}" for each in answers if each.error)


def _is_on_several_machines(context: CheckContext) -> bool:
    return len({node.name.partition("/")[0] for node in context.nodes}) > 1


CHECKS: Mapping[str, Callable[[CheckContext], Finding]] = {
    "nodes": check_nodes,
    "GPUs": check_gpus,
    "versions": check_versions,
    "storage": check_shared_storage,
    "MLflow": check_mlflow,
    "models": check_models,
    "models & data": check_space,
    "DeepSpeed": check_deepspeed,
}
