"""Shots: the training examples that are shown, with their answers, before a question.

They come from the train split only; a question is never its own shot, nor is one of its group.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from trainables.spec.rows.shot_knobs import SHOT_ROWS, reads_base
from trainables.tasks.task import SPLITS, Example, Task

Order = Callable[[Example], Sequence[int]]
"""The places of the training examples for a question, the best shot first."""
TextVectors = Callable[[Sequence[str]], Any]
"""Unit vectors of texts, (texts, width): those of TF-IDF sparse, others dense."""
ASKED = ("selection", "report")  # the splits whose questions have shots before them
_MOST_LABELS = 20  # golds of more kinds are no labels
_RARE = 0.05  # a term of at most this share of the training examples is rare


@dataclass(frozen=True)
class Shots:
    """Chooses `count` of the training examples for a question; the best one comes last, nearest to
    the question."""

    train: Sequence[Example]
    count: int
    order: Order

    def of(self, example: Example) -> list[Example]:
        chosen: list[Example] = []
        for place in self.order(example):
            shot = self.train[place]
            if shot.id != example.id and shot.group != example.group:
                chosen.append(shot)
            if len(chosen) == self.count:
                break
        return chosen[::-1]


def shot_values(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """What canonical knobs say of shots."""
    return {name: knobs[name] for name in SHOT_ROWS if name in knobs}


def shots_for(
    knobs: Mapping[str, Any], task: Task, *, of_base: TextVectors | None = None
) -> Shots | None:
    """The shots of a trial with these knobs, or None without any.

    `of_base`: the vectors of all questions by the base, if `reads_base`; where there is no base, as
    in a prediction of lengths, those of TF-IDF stand in.
    """
    count = int(knobs.get("shots", 0))
    if not count:
        return None
    train = task.load("train")
    selection, seed = str(knobs["shot_selection"]), int(knobs["shot_seed"])
    pool = Pool(task, train, of_base if reads_base(knobs) else None)
    return Shots(train, count, SELECTIONS[selection](pool, seed, count))


def questions_of(task: Task) -> Iterator[str]:
    """The texts of all questions, those that may be shots among them."""
    return (_text(task, example) for split in SPLITS for example in task.load(split))


@dataclass(frozen=True)
class Pool:
    """The training examples among which shots are chosen; `of_base` are vectors in the place of
    those of TF-IDF."""

    task: Task
    train: Sequence[Example]
    of_base: TextVectors | None = None

    def vectors(self) -> tuple[Any, Callable[[Example], Any]]:
        """Those of the training examples, a row each, and the function for another example."""
        return self._by(self.of_base or self._of_terms())

    def terms(self) -> tuple[Any, Callable[[Example], Any]]:
        """As `vectors`, by terms in any case."""
        return self._by(self._of_terms())

    def _of_terms(self) -> TextVectors:
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = [_text(self.task, example) for example in self.train]
        vectors: TextVectors = TfidfVectorizer(sublinear_tf=True).fit(texts).transform
        return vectors

    def _by(self, vectors: TextVectors) -> tuple[Any, Callable[[Example], Any]]:
        of_text = functools.cache(lambda text: vectors([text]))
        own = vectors([_text(self.task, example) for example in self.train])
        return own, lambda example: of_text(_text(self.task, example))


def _random(pool: Pool, seed: int, count: int) -> Order:
    """The same for every question."""
    del count
    order = list(range(len(pool.train)))
    random.Random(f"shots/{seed}").shuffle(order)
    return lambda example: order


def _balanced(pool: Pool, seed: int, count: int) -> Order:
    """As random, with labels in turn; the kinds of question in turn where answers are no labels."""
    golds = [pool.task.gold_text(example) for example in pool.train]
    is_labelled = len(set(golds)) <= _MOST_LABELS
    labels = golds if is_labelled else [example.kind for example in pool.train]
    drawn = _random(pool, seed, count)(pool.train[0])
    by_label = [[at for at in drawn if labels[at] == label] for label in sorted(set(labels))]
    random.Random(f"labels/{seed}").shuffle(by_label)
    turns = [at for turn in zip_longest(*by_label) for at in turn if at is not None]
    return lambda example: turns


def _similar(pool: Pool, seed: int, count: int) -> Order:
    """The nearest by the cosine of their vectors."""
    del seed, count
    vectors, of_example = pool.vectors()

    def order(example: Example) -> Sequence[int]:
        found = vectors @ of_example(example).T
        cosines = (found if pool.of_base else found.toarray())[:, 0]
        return [int(at) for at in (-cosines).argsort(kind="stable")]

    return order


def _regions(pool: Pool, seed: int, count: int) -> Order:
    """The example nearest to the centre of each of k regions (k-means of the vectors), and then the
    next ones; the same for every question."""
    from sklearn.cluster import KMeans

    vectors, _ = pool.vectors()
    regions = min(count, len(pool.train))
    distances = KMeans(regions, n_init=3, random_state=seed).fit(vectors).transform(vectors)
    nearest = [distances[:, region].argsort(kind="stable").tolist() for region in range(regions)]
    found = list(dict.fromkeys(int(at) for turn in zip(*nearest, strict=True) for at in turn))
    return lambda example: found


def _keywords(pool: Pool, seed: int, count: int) -> Order:
    """Those that share most rare terms with the question, weighted by their rarity."""
    del seed, count
    import numpy

    vectors, of_example = pool.terms()
    frequency = numpy.asarray((vectors > 0).mean(axis=0))[0]
    rare = max(_RARE, 1 / len(pool.train))
    weights = numpy.where(frequency <= rare, -numpy.log(frequency + 1e-9), 0)
    has = (vectors > 0).astype(float)

    def order(example: Example) -> Sequence[int]:
        asked = (of_example(example) > 0).toarray()[0] * weights
        found = has @ asked
        return [int(at) for at in (-found).argsort(kind="stable")]

    return order


def _text(task: Task, example: Example) -> str:
    """The question alone, without the page that it is about."""
    return str(example.record.get("question") or task.prompt(example).text)


SELECTIONS: dict[str, Callable[[Pool, int, int], Order]] = {
    "random": _random,
    "balanced": _balanced,
    "similar": _similar,
    "regions": _regions,
    "keywords": _keywords,
}
