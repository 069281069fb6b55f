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

from trainables.spec.rows.shot_knobs import SHOT_ROWS
from trainables.tasks.task import Example, Task

Order = Callable[[Example], Sequence[int]]
"""The places of the training examples for a question, the best shot first."""
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


def shots_for(knobs: Mapping[str, Any], task: Task) -> Shots | None:
    """The shots of a trial with these knobs, or None without any."""
    count = int(knobs.get("shots", 0))
    if not count:
        return None
    train = task.load("train")
    selection, seed = str(knobs["shot_selection"]), int(knobs["shot_seed"])
    return Shots(train, count, SELECTIONS[selection](task, train, seed, count))


def _random(task: Task, train: Sequence[Example], seed: int, count: int) -> Order:
    """The same for every question."""
    del task, count
    order = list(range(len(train)))
    random.Random(f"shots/{seed}").shuffle(order)
    return lambda example: order


def _balanced(task: Task, train: Sequence[Example], seed: int, count: int) -> Order:
    """As random, with labels in turn; the kinds of question in turn where answers are no labels."""
    golds = [task.gold_text(example) for example in train]
    is_labelled = len(set(golds)) <= _MOST_LABELS
    labels = golds if is_labelled else [example.kind for example in train]
    drawn = _random(task, train, seed, count)(train[0])
    by_label = [[at for at in drawn if labels[at] == label] for label in sorted(set(labels))]
    random.Random(f"labels/{seed}").shuffle(by_label)
    turns = [at for turn in zip_longest(*by_label) for at in turn if at is not None]
    return lambda example: turns


def _similar(task: Task, train: Sequence[Example], seed: int, count: int) -> Order:
    """The nearest by the cosine of TF-IDF vectors."""
    del seed, count
    vectors, of_text = _vectors(task, train)

    def order(example: Example) -> Sequence[int]:
        found = (vectors @ of_text(_text(task, example)).T).toarray()[:, 0]
        return [int(at) for at in (-found).argsort(kind="stable")]

    return order


def _regions(task: Task, train: Sequence[Example], seed: int, count: int) -> Order:
    """The example nearest to the centre of each of k regions (k-means of TF-IDF vectors), and then
    the next ones; the same for every question."""
    from sklearn.cluster import KMeans

    vectors, _ = _vectors(task, train)
    regions = min(count, len(train))
    distances = KMeans(regions, n_init=3, random_state=seed).fit(vectors).transform(vectors)
    nearest = [distances[:, region].argsort(kind="stable").tolist() for region in range(regions)]
    found = list(dict.fromkeys(int(at) for turn in zip(*nearest, strict=True) for at in turn))
    return lambda example: found


def _keywords(task: Task, train: Sequence[Example], seed: int, count: int) -> Order:
    """Those that share most rare terms with the question, weighted by their rarity."""
    del seed, count
    import numpy

    vectors, of_text = _vectors(task, train)
    frequency = numpy.asarray((vectors > 0).mean(axis=0))[0]
    weights = numpy.where(frequency <= max(_RARE, 1 / len(train)), -numpy.log(frequency + 1e-9), 0)
    has = (vectors > 0).astype(float)

    def order(example: Example) -> Sequence[int]:
        asked = (of_text(_text(task, example)) > 0).toarray()[0] * weights
        found = has @ asked
        return [int(at) for at in (-found).argsort(kind="stable")]

    return order


def _vectors(task: Task, train: Sequence[Example]) -> tuple[Any, Callable[[str], Any]]:
    """The TF-IDF vectors of the training examples, a row each, and the function for another."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    vectors = vectorizer.fit_transform(_texts(task, train))
    return vectors, functools.cache(lambda text: vectorizer.transform([text]))


def _texts(task: Task, examples: Sequence[Example]) -> Iterator[str]:
    return (_text(task, example) for example in examples)


def _text(task: Task, example: Example) -> str:
    """The question alone, without the page that it is about."""
    return str(example.record.get("question") or task.prompt(example).text)


SELECTIONS: dict[str, Callable[[Task, Sequence[Example], int, int], Order]] = {
    "random": _random,
    "balanced": _balanced,
    "similar": _similar,
    "regions": _regions,
    "keywords": _keywords,
}
