"""Labels of tokens are written one a line and read back."""

from __future__ import annotations

import random

from trainables.tasks.financial.token_labels import label_lines, tags_of_lines

LABELS = {"PER": ("person", "human"), "ORG": ("organization",)}
TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")


def test_what_is_written_is_read() -> None:
    rng = random.Random(0)
    for count in range(1, 30):
        tags = rng.choices(TAGS, k=count)
        assert tags_of_lines(label_lines(tags, LABELS), LABELS, tokens=count) == tags


def test_every_word_for_a_label_and_the_label_itself_are_read_in_any_case() -> None:
    answer = "Human_B\n PER_i \nORGANIZATION_B\nOther\n"
    assert tags_of_lines(answer, LABELS, tokens=4) == ["B-PER", "I-PER", "B-ORG", "O"]


def test_lines_that_are_no_label_or_missing_are_no_entity_and_none_at_all_is_no_answer() -> None:
    assert tags_of_lines("person_b\n\nperson\norg_b", LABELS, tokens=5) == [
        *("B-PER", "O", "O", "B-ORG", "O")
    ]
    assert tags_of_lines("other\nperson_b", LABELS, tokens=1) == ["O"]
    for answer in ("", "none", "Acme: ORG", "\n\n"):
        assert tags_of_lines(answer, LABELS, tokens=3) is None
    assert tags_of_lines("hm\nperson_b", LABELS, tokens=1) is None
