"""Process groups: equal numbers of micro-batches of a step's examples for all workers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from trainables.training.process_group import SingleProcess, share


@dataclass(frozen=True)
class Member(SingleProcess):
    """A place in a team; only its number is asked for here."""


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("examples", [1, 2, 5, 8, 12])
def test_every_example_is_someones_and_all_have_as_many_micro_batches(
    size: int, rows: int, examples: int
) -> None:
    indices = list(range(100, 100 + examples))
    shares = [share(indices, Member(rank, size), rows=rows) for rank in range(size)]
    assert sorted(index for mine in shares for batch in mine for index in batch) == indices
    assert len({len(mine) for mine in shares}) == 1
    assert all(len(batch) <= rows for mine in shares for batch in mine)


def test_one_alone_has_the_batches_in_their_order() -> None:
    assert share([3, 1, 2, 5, 4], SingleProcess(), rows=2) == [[3, 1], [2, 5], [4]]


def test_a_worker_without_an_example_has_an_empty_batch() -> None:
    assert share([7], Member(1, 2), rows=4) == [[]]
