"""The configurations that represent a cell in a plan."""

from __future__ import annotations

from typing import Any

from orchestrator.config.reader import from_mapping
from orchestrator.planning.representatives import Representatives, representatives
from tests.orchestrator import tiny_sweep


def of(exclude: Any = None, **space: Any) -> dict[tuple[str, str, str], Representatives]:
    value = tiny_sweep.mapping()
    value["space"] |= space
    return representatives(from_mapping({**value, "exclude": exclude}))


def test_each_cell_has_its_own_in_the_order_of_the_space() -> None:
    assert list(of()) == [("a-model", "none", "lora"), ("a-model", "nf4", "lora")]


def test_the_least_and_the_most_memory_are_at_the_ends() -> None:
    found = of(
        batch_size=[1, 8, 2],
        rank=[4, 64],
        sequence_length=[512, 128],
        gradient_checkpointing=[
            False,
            True,
        ],
    )[("a-model", "none", "lora")]
    smallest = {"batch_size": 1, "rank": 4, "sequence_length": 128, "gradient_checkpointing": True}
    assert {**found.smallest, **smallest} == found.smallest
    largest = {"batch_size": 8, "rank": 64, "sequence_length": 512, "gradient_checkpointing": False}
    assert {**found.largest, **largest} == found.largest
    assert found.typical not in (found.smallest, found.largest)


def test_excluded_configurations_stand_for_nothing() -> None:
    rules = [{"batch_size": 8, "quantization": "none"}, {"quantization": "nf4"}]
    found = of(rules, batch_size=[1, 8])
    assert list(found) == [("a-model", "none", "lora")]
    assert found[("a-model", "none", "lora")].largest["batch_size"] == 1


def test_a_space_without_end_is_drawn_from() -> None:
    found = of(learning_rate={"log_uniform": [1e-5, 1e-2]}, batch_size=[1, 8])
    assert found[("a-model", "nf4", "lora")].largest["batch_size"] == 8
