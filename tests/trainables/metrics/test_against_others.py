"""Metrics of entities and of texts are those of seqeval and of their published definitions.

The rule for entities is seqeval's default one, which is that of CoNLL's script: an `I-` that
continues nothing begins an entity. Its strict mode leaves such a tag out; where every entity begins
with `B-`, both agree. `token_f1` is that of SQuAD's script on texts without articles, `rouge_l` the
F1 of the longest common subsequence.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import pytest
from seqeval import metrics as seqeval_metrics
from seqeval.scheme import IOB2

from trainables.metrics.of_entities import OF_ENTITIES, entities_of, written
from trainables.metrics.of_text import rouge_l, token_f1
from trainables.tasks.own_data.tagged_rows import entities

CASES = 200
WORDS = ("profit", "rose", "fell", "by", "5", "sales", "net")


def _tags(draw: random.Random, length: int, *, well_formed: bool) -> list[str]:
    """Tags of two labels; those that are well formed begin each entity with `B-`."""
    tags: list[str] = []
    for _ in range(length):
        label, before = draw.choice(("ORG", "LOC")), tags[-1] if tags else "O"
        tag = draw.choice(("O", "B-", "I-")) + label
        if well_formed and tag.startswith("I-"):
            tag = "O" if before == "O" else f"I-{before[2:]}"
        tags.append("O" if tag.startswith("O") else tag)
    return tags


def _case(seed: int, *, well_formed: bool) -> tuple[list[list[str]], list[list[str]]]:
    """The gold and the answered tags of some sentences, with an entity at least."""
    draw = random.Random(seed)
    gold = [["B-ORG", "O"]]
    gold += [_tags(draw, draw.randrange(1, 9), well_formed=well_formed) for _ in range(6)]
    answered = [
        row if draw.random() < 0.3 else _tags(draw, len(row), well_formed=well_formed)
        for row in gold
    ]
    return gold, answered


def _listed(tags: Sequence[str]) -> str:
    """The answer that lists the entities of a sentence in which no word is there twice."""
    return written(entities([f"w{at}" for at in range(len(tags))], tags))


@pytest.mark.parametrize("well_formed", [False, True])
@pytest.mark.parametrize("seed", range(CASES))
def test_entities_are_those_of_seqeval(seed: int, well_formed: bool) -> None:
    gold, answered = _case(seed, well_formed=well_formed)
    strict = {"mode": "strict", "scheme": IOB2} if well_formed else {}
    rows = [
        entities_of(_listed(one), _listed(other)) for one, other in zip(gold, answered, strict=True)
    ]
    for name in ("precision", "recall", "f1"):
        measure = getattr(seqeval_metrics, f"{name}_score")
        expected = measure(gold, answered, average="micro", zero_division=0, **strict)
        assert OF_ENTITIES[f"entity_{name}"].value(rows) == pytest.approx(expected), name


def test_a_tag_that_continues_nothing_begins_an_entity_unlike_in_strict_mode() -> None:
    tags = [["O", "I-ORG", "B-LOC"]]
    assert _listed(tags[0]) == "w1: ORG; w2: LOC"
    assert seqeval_metrics.recall_score(tags, [["O", "I-ORG", "O"]]) == 0.5
    assert seqeval_metrics.f1_score(tags, tags, mode="strict", scheme=IOB2) == 1.0
    only = [["O", "O", "B-LOC"]]
    assert seqeval_metrics.f1_score(tags, only, mode="strict", scheme=IOB2) == 1.0


def _text(draw: random.Random, words: Sequence[str]) -> str:
    """The words in any case, some with a mark after them."""
    return " ".join(draw.choice((word, word.title(), f"{word},", f"{word}.")) for word in words)


def _f1(shared: int, gold: Sequence[str], answer: Sequence[str]) -> float:
    if not gold or not answer:
        return float(list(gold) == list(answer))
    precision, recall = shared / len(answer), shared / len(gold)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def _is_within(part: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


@pytest.mark.parametrize("seed", range(CASES))
def test_overlaps_of_words_are_those_of_their_definitions(seed: int) -> None:
    draw = random.Random(seed)
    gold, answer = ([draw.choice(WORDS) for _ in range(draw.randrange(8))] for _ in range(2))
    texts = _text(draw, gold), _text(draw, answer)
    shared = sum((Counter(gold) & Counter(answer)).values())
    assert token_f1(*texts)["token_f1"] == pytest.approx(_f1(shared, gold, answer))
    longest = max(
        size
        for size in range(len(gold) + 1)
        if any(_is_within(part, answer) for part in combinations(gold, size))
    )
    assert rouge_l(*texts)["rouge_l"] == pytest.approx(_f1(longest, gold, answer))
