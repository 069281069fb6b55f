"""BM25 and TF-IDF equal their formulas on random texts."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from trainables.tasks.retrieval.retrievers import K1, B, bm25, terms, tfidf

WORDS = [f"w{number}" for number in range(30)]


def texts(seed: int) -> tuple[list[str], str]:
    drawn = random.Random(seed)
    units = [
        " ".join(drawn.choices(WORDS, k=drawn.randint(1, 20))) for _ in range(drawn.randint(1, 25))
    ]
    return units, " ".join(drawn.choices([*WORDS, "unknown"], k=6))


def okapi(units: Sequence[str], question: str) -> list[float]:
    """The formula as it is printed, term by term."""
    counts = [Counter(unit.split()) for unit in units]
    mean = sum(map(len, map(str.split, units))) / len(units)
    found = []
    for count in counts:
        total = 0.0
        for term in question.split():
            having = sum(term in other for other in counts)
            rarity = math.log(1 + (len(units) - having + 0.5) / (having + 0.5))
            length = sum(count.values()) / mean
            total += rarity * count[term] / (count[term] + K1 * (1 - B + B * length))
        found.append(total)
    return found


def cosines(units: Sequence[str], question: str) -> list[float]:
    """TF-IDF with smoothed frequencies: log((1 + n) / (1 + having)) + 1."""

    def vector(text: str) -> dict[str, float]:
        weights = {
            term: count * (math.log((1 + len(units)) / (1 + having)) + 1)
            for term, count in Counter(text.split()).items()
            if (having := sum(term in unit.split() for unit in units))
        }
        norm = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        return {term: weight / norm for term, weight in weights.items()}

    asked = vector(question)
    return [
        sum(weight * asked.get(term, 0.0) for term, weight in vector(unit).items())
        for unit in units
    ]


@pytest.mark.parametrize("seed", range(40))
def test_scores_are_those_of_the_formula(seed: int) -> None:
    units, question = texts(seed)
    assert list(bm25(units)(question)) == pytest.approx(okapi(units, question), abs=1e-12)
    assert list(tfidf(units)(question)) == pytest.approx(cosines(units, question), abs=1e-12)


def test_terms_are_runs_of_letters_and_digits_in_lower_case() -> None:
    assert terms("Net sales: $1,496.5 (ÜBER 売上高)") == [
        "net",
        "sales",
        "1",
        "496",
        "5",
        "über",
        "売上高",
    ]
