"""Checks of KubeRay's manifests (RayCluster, RayJob) before they are applied.

KubeRay's operator checks its own schema; the checks here find what it accepts and what fails a
sweep later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

Spec = Mapping[str, Any]
GPU = "nvidia.com/gpu"


def kuberay_faults(manifests: Sequence[Spec]) -> list[str]:
    """All faults of the manifests, each with its fix."""
    clusters = [found for each in manifests for found in [_cluster_of(each)] if found]
    if not clusters:
        return ["holds no RayCluster and no RayJob of ray.io/v1. Start from clusters/kuberay/."]
    claims = [each for each in manifests if each.get("kind") == "PersistentVolumeClaim"]
    found = [fault for where, spec in clusters for fault in _cluster_faults(where, spec)]
    return [*found, *(fault for claim in claims for fault in _claim_faults(claim))]


def _cluster_of(manifest: Spec) -> tuple[str, Spec] | None:
    """The path of the cluster's specification in a manifest and its value, or None."""
    if not str(manifest.get("apiVersion", "")).startswith("ray.io/"):
        return None
    spec = manifest.get("spec") or {}
    if manifest.get("kind") == "RayJob":
        return "RayJob.spec.rayClusterSpec", spec.get("rayClusterSpec") or {}
    return f"{manifest.get('kind')}.spec", spec


def _cluster_faults(where: str, spec: Spec) -> Iterator[str]:
    if str(spec.get("rayVersion")) != version("ray"):
        yield f"{where}.rayVersion: {spec.get('rayVersion')}. The project runs {version('ray')}."
    if (spec.get("authOptions") or {}).get("mode") != "token":
        yield f"{where}.authOptions: anyone who reaches the pods may run code. Use {{mode: token}}."
    head = spec.get("headGroupSpec") or {}
    groups = spec.get("workerGroupSpecs") or []
    yield from _pod_faults(f"{where}.headGroupSpec", head)
    for place, group in enumerate(groups):
        yield from _pod_faults(f"{where}.workerGroupSpecs[{place}]", group)
        yield from _count_faults(f"{where}.workerGroupSpecs[{place}]", group)
    if not any(group.get("maxReplicas", 0) for group in groups):
        yield f"{where}.workerGroupSpecs: no worker may ever start. Raise maxReplicas."
    if not _shared_mounts(head, groups):
        yield f"{where}: head and workers mount no volume at the same place. Add the shared one."
    grows = any(group.get("maxReplicas", 0) > group.get("minReplicas", 0) for group in groups)
    if grows and not spec.get("enableInTreeAutoscaling"):
        yield f"{where}.enableInTreeAutoscaling: nothing grows without it. Write true."


def _pod_faults(where: str, group: Spec) -> Iterator[str]:
    containers = _containers(group)
    if not containers:
        yield f"{where}: has no container."
        return
    image = str(containers[0].get("image", ""))
    tag = image.rpartition("/")[2].partition(":")[2]
    if "<<" not in image and tag in ("", "latest"):
        yield f"{where}: image {image!r} is another one tomorrow. Name a version."
    resources = containers[0].get("resources") or {}
    asked, limit = (_gpus(resources.get(name)) for name in ("requests", "limits"))
    if asked != limit:
        yield f"{where}: requests {asked} of {GPU}, limits {limit}. Kubernetes wants them equal."


def _count_faults(where: str, group: Spec) -> Iterator[str]:
    low, now, high = (group.get(name, 0) for name in ("minReplicas", "replicas", "maxReplicas"))
    if not low <= now <= high:
        yield f"{where}: minReplicas {low} <= replicas {now} <= maxReplicas {high} does not hold."


def _claim_faults(claim: Spec) -> Iterator[str]:
    modes = (claim.get("spec") or {}).get("accessModes") or []
    if "ReadWriteMany" not in modes:
        yield (
            f"PersistentVolumeClaim.spec.accessModes: {modes}: only one node could write there. "
            "Use [ReadWriteMany] and a storage class that has it."
        )


def _shared_mounts(head: Spec, groups: Sequence[Spec]) -> set[str]:
    """The mount paths that the first containers of all pods have in common."""
    places = [
        {mount["mountPath"] for mount in containers[0].get("volumeMounts") or []}
        for group in (head, *groups)
        for containers in [_containers(group)]
        if containers
    ]
    return set.intersection(*places) if places else set()


def _containers(group: Spec) -> Sequence[Spec]:
    found: Sequence[Spec] = ((group.get("template") or {}).get("spec") or {}).get("containers", [])
    return found


def _gpus(resources: Spec | None) -> int:
    return int((resources or {}).get(GPU, 0))
