"""The beginning of a split is what all its prompts share, if that is enough to be worth it."""

from __future__ import annotations

import random

import pytest

from trainables.data.batches import largest_batch, length_sorted
from trainables.data.beginning import shared_beginning

SHOTS = tuple(range(100, 140))


@pytest.mark.parametrize(
    ("prompts", "length"),
    [
        ([(*SHOTS, 1, 2, 3), (*SHOTS, 1, 4), (*SHOTS, 5, 6, 7, 8)], 40),
        ([(*SHOTS, 1, 2, 3), (), (*SHOTS, 5, 6)], 40),  # one does not fit
        ([(*SHOTS, 1, 2), (*SHOTS, 3)], 39),  # two tokens are left to each
        ([SHOTS, SHOTS], 38),
        ([(*SHOTS, 1, 2), (0, *SHOTS, 1, 2)], 0),
        ([(*SHOTS, *range(200)), (*SHOTS, *range(1, 200))], 0),  # too little
        ([(*SHOTS, 1, 2)], 0),
        ([], 0),
    ],
)
def test_it_is_what_all_share(prompts: list[tuple[int, ...]], length: int) -> None:
    assert shared_beginning(prompts) == length


def test_it_is_the_longest_of_random_prompts() -> None:
    rng = random.Random(0)
    for _ in range(200):
        begun = tuple(rng.choices(range(3), k=rng.randrange(1, 9)))
        prompts = [(*begun, *rng.choices(range(3), k=6)) for _ in range(rng.randrange(2, 5))]
        most = min(map(len, prompts)) - 2
        shared = [at for at in range(1, most + 1) if len({row[:at] for row in prompts}) == 1]
        longest = max(shared, default=0)
        average = sum(map(len, prompts)) / len(prompts)
        assert shared_beginning(prompts) == (longest if longest >= average / 4 else 0)


def test_padding_is_less_than_half_of_a_batch() -> None:
    lengths = [100, 51, 50, 49, 25, 24, 3]
    assert length_sorted(lengths, batch_size=9) == [[0, 1, 2], [3, 4], [5], [6]]
    assert length_sorted(lengths[:4], batch_size=9, known=40) == [[0], [1, 2, 3]]


def test_the_largest_batch_is_the_one_with_most_tokens() -> None:
    lengths = [90, 40, 40, 39, 1]
    assert largest_batch(lengths, [[0], [1, 2, 3], [4]]) == 1
    assert largest_batch(lengths, [[0], [1], [2, 4]]) == 0
    assert largest_batch([], []) == -1
