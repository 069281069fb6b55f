"""Answers that label the tokens of a sentence, one label a line: `person_b`, `person_i`, `other`.

As Shah et al. (2023) ask language models: the first token of an entity has `_b`, those after it
`_i`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainables.tasks.own_data.tagged_rows import OUTSIDE

Labels = Mapping[str, Sequence[str]]
"""The words that are written for each label; the first is learned."""
OTHER = "other"


def label_lines(tags: Sequence[str], labels: Labels) -> str:
    """The lines of tags as `O`, `B-PER` and `I-PER`."""
    return "\n".join(_line(tag, labels) for tag in tags)


def tags_of_lines(answer: str, labels: Labels, *, tokens: int) -> list[str] | None:
    """The tags of so many tokens, whatever the case of the lines; None if no line is a label.

    A line that is no label, and one that is missing, is no entity; those after the last token do
    not count.
    """
    known = {OTHER: OUTSIDE} | {
        f"{word}_{place}".casefold(): f"{place.upper()}-{label}"
        for label, words in labels.items()
        for word in (label, *words)
        for place in "bi"
    }
    lines = [line.strip().casefold() for line in answer.strip().split("\n")[:tokens]]
    if not any(line in known for line in lines):
        return None
    found = [known.get(line, OUTSIDE) for line in lines]
    return [*found, *[OUTSIDE] * (tokens - len(found))]


def _line(tag: str, labels: Labels) -> str:
    if tag == OUTSIDE:
        return OTHER
    place, _, label = tag.partition("-")
    return f"{labels[label][0]}_{place.lower()}"
