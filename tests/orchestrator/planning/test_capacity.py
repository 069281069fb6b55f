"""Sizes, and the memory that a trial may take."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cluster.nodes import one_accelerator
from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import ResourcesConfig
from orchestrator.config.settings import parsed_size, size
from orchestrator.config.writer import to_mapping
from orchestrator.formatting import in_words
from orchestrator.planning.capacity import (
    CPU,
    CPU_HOST_MEMORY_BYTES,
    CUDA,
    Capacity,
    cluster_capacity,
    planned_capacity,
)
from tests.orchestrator import tiny_sweep
from trainables.errors import InputError

GIBIBYTE = 1 << 30
A100 = {"device_type": "cuda", "device": "NVIDIA A100", "device_memory_bytes": 42 * GIBIBYTE}
A_CPU = {"device_type": "cpu", "device": "a CPU", "device_memory_bytes": 16 * GIBIBYTE}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("40GiB", 40 * GIBIBYTE),
        ("40 gib", 40 * GIBIBYTE),
        ("1.5GiB", 3 * GIBIBYTE // 2),
        ("80GB", 80 * 10**9),
        ("512 MiB", 512 << 20),
        (1024, 1024),
        ("2048", 2048),
    ],
)
def test_sizes(given: Any, found: int) -> None:
    assert size(given) is None
    assert parsed_size(given) == found


@pytest.mark.parametrize("given", ["", "GiB", "40 parsecs", "-1GiB", 0, -5, 1.5, True, None, []])
def test_what_is_no_size(given: Any) -> None:
    assert "needs a size, as 40GiB" in str(size(given))


def test_bytes_in_words() -> None:
    assert in_words(40 * GIBIBYTE) == "40.0 GiB"
    assert in_words(300 << 20) == "300 MiB"
    assert in_words(1536) == "1.5 KiB"


def test_hardware_is_read_strictly_and_written_back_as_it_was() -> None:
    resources = {"gpus": 4, "gpu_memory": "40GiB", "memory": "8GiB", "accelerator_type": "A100"}
    settings = from_mapping(tiny_sweep.mapping(resources=resources))
    assert settings.resources.gpu_memory == 40 * GIBIBYTE
    assert settings.resources.gpus == 4
    assert from_mapping(to_mapping(settings)) == settings
    assert "gpu_memory" not in to_mapping(from_mapping(tiny_sweep.mapping()))["resources"]
    wrong = {"gpus": 0, "gpu_memory": "lots", "gpu_memry": 1}
    with pytest.raises(InputError) as refused:
        from_mapping(tiny_sweep.mapping(resources=wrong))
    told = "\n".join(refused.value.messages)
    assert "resources.gpus: got 0" in told
    assert "resources.gpu_memory: got 'lots'; needs a size" in told
    assert "gpu_memry: unknown key. Did you mean 'gpu_memory'?" in told


def test_a_gpu_has_what_it_says_or_less_if_the_space_says_so() -> None:
    nodes = [{"GPU": 2.0}, {"GPU": 2.0}]
    assert cluster_capacity(ResourcesConfig(), A100, nodes) == Capacity(
        42 * GIBIBYTE, CUDA, "NVIDIA A100", 4
    )
    given = ResourcesConfig(gpu_memory=20 * GIBIBYTE, gpus=8)
    assert cluster_capacity(given, A100, nodes) == Capacity(
        20 * GIBIBYTE, CUDA, "resources.gpu_memory", 8
    )


def test_on_a_cpu_a_host_takes_something_for_itself() -> None:
    found = cluster_capacity(ResourcesConfig(), A_CPU, [{"memory": 8.0 * GIBIBYTE}, {}])
    assert found is not None
    assert (found.bytes, found.device_type) == (8 * GIBIBYTE - CPU_HOST_MEMORY_BYTES, CPU)
    given = cluster_capacity(ResourcesConfig(memory=GIBIBYTE), A_CPU, [])
    assert given == Capacity(GIBIBYTE, CPU, "resources.memory")
    unknown = cluster_capacity(ResourcesConfig(), {"device_type": "cpu"}, [{}])
    assert unknown is None


def test_gpus_that_are_not_here_are_only_planned_for() -> None:
    with pytest.raises(InputError, match=r"the cluster has no GPU.*--dry-run"):
        cluster_capacity(ResourcesConfig(gpu_memory=GIBIBYTE), A_CPU, [])


def test_a_plan_is_for_what_the_space_names_else_for_this_machine() -> None:
    four = planned_capacity(ResourcesConfig(gpus=4, gpu_memory=40 * GIBIBYTE), memory_bytes=0)
    assert four == Capacity(40 * GIBIBYTE, CUDA, "resources.gpu_memory", 4)
    here = planned_capacity(ResourcesConfig(), memory_bytes=4 * GIBIBYTE)
    assert (here.bytes, here.device_type) == (3 * GIBIBYTE, CPU)
    with pytest.raises(InputError, match=r"resources\.gpus: how much memory has each"):
        planned_capacity(ResourcesConfig(gpus=4), memory_bytes=0)


def test_a_trial_with_a_part_of_a_gpu_may_take_that_part_of_its_memory() -> None:
    half = ResourcesConfig(gpus_per_trial=0.5)
    found = cluster_capacity(half, A100, [{"GPU": 1.0}])
    assert found is not None and found.bytes == 21 * GIBIBYTE
    planned = ResourcesConfig(gpus_per_trial=0.5, gpus=1, gpu_memory=40 * GIBIBYTE)
    assert planned_capacity(planned, memory_bytes=0).bytes == 20 * GIBIBYTE


def test_a_sweep_keeps_to_the_type_of_gpu_that_there_is_most_of() -> None:
    t4, a100 = "accelerator_type:T4", "accelerator_type:A100"
    nodes = [{"CPU": 2.0}, {"GPU": 1.0, t4: 1.0}, {"GPU": 4.0, a100: 1.0}, {"GPU": 1.0, t4: 1.0}]
    assert one_accelerator(nodes, None) == ([nodes[2]], "A100")
    assert one_accelerator(nodes[:2], None) == (nodes[:2], None)
    assert one_accelerator([], None) == ([], None)


def test_a_sweep_keeps_to_the_type_of_gpu_that_it_was_given() -> None:
    t4, a100 = "accelerator_type:T4", "accelerator_type:A100"
    nodes = [{"CPU": 2.0}, {"GPU": 1.0, t4: 1.0}, {"GPU": 4.0, a100: 1.0}]
    assert one_accelerator(nodes, "T4") == ([nodes[1]], "T4")
    assert one_accelerator([{"GPU": 2.0}], "T4") == ([{"GPU": 2.0}], "T4")  # Ray knows no type
    with pytest.raises(InputError, match=r"accelerator_type: .* type H100; there are: A100, T4\."):
        one_accelerator(nodes, "H100")
