"""What an autoscaler may still start: each node of its types, less those that run."""

from __future__ import annotations

from orchestrator.autoscaled import NodeGroup, possible_nodes

GPU = {"CPU": 4.0, "GPU": 1.0}
BIG = {"CPU": 48.0, "GPU": 4.0}
GROUPS = [NodeGroup("t4", GPU, 2), NodeGroup("a10g_four", BIG, 1), NodeGroup("head", {}, 0)]


def test_all_of_them_while_none_runs() -> None:
    assert possible_nodes(GROUPS, [{}]) == [GPU, GPU, BIG]


def test_those_that_run_are_not_counted_twice() -> None:
    running = [{"ray.io/node-group": "t4"}, {"ray.io/node-group": "a10g_four"}]
    assert possible_nodes(GROUPS, running) == [GPU]


def test_more_than_the_file_allows_now_are_none_too_few() -> None:
    assert possible_nodes([NodeGroup("t4", GPU, 1)], [{"ray.io/node-group": "t4"}] * 3) == []
