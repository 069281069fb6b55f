"""Metrics of answers that list entities, each as `text: label`.

An entity is right if the gold has one of the same text and label; one that is answered more often
than the gold has it is wrong. F1, precision and recall are over all entities of a split (micro
averages), so that sentences without entities, and tokens outside of them, add nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainables.metrics.metric import Metric, Scores, Statistic
from trainables.spec.metric import MetricSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_ENTITIES = "none"  # what is written where there is none
BETWEEN = "; "  # of two entities
RIGHT, ANSWERED, GOLD = "entities_right", "entities_answered", "entities_gold"
ALL = "all_entities"  # whether all of a question are right

Entity = tuple[str, str]  # text and label


def written(entities: Sequence[Entity]) -> str:
    """The entities as an answer lists them."""
    return BETWEEN.join(f"{text}: {label}" for text, label in entities) or NO_ENTITIES


def listed(answer: str) -> list[Entity]:
    """The entities that an answer lists; what has not the form `text: label` is left out."""
    parts = [part.rpartition(":") for part in answer.split(BETWEEN.strip())]
    found = [(" ".join(text.split()), " ".join(label.split())) for text, _, label in parts]
    return [(text, label) for text, label in found if text and label]


def entities_of(gold: str, answer: str) -> Scores:
    """The values of a question: its numbers of entities, and whether all are right."""
    wanted, given = Counter(listed(gold)), Counter(listed(answer))
    said_none = answer.strip().rstrip(".").casefold() == NO_ENTITIES
    return {
        RIGHT: (wanted & given).total(),
        ANSWERED: given.total(),
        GOLD: wanted.total(),
        ALL: wanted == given and (said_none or bool(given)),
        "not_followed": not given and not said_none,
    }


def _share_of(*parts: str) -> Statistic:
    """The right entities as a share of the mean of these counts; where there are none at all, 1 if
    every answer said so."""

    def of_samples(columns: Sequence[Sequence[Any]], places: NDArray[Any]) -> NDArray[Any]:
        import numpy

        sums = {
            key: numpy.array(column, dtype=float)[places].sum(-1)
            for key, column in zip(keys, columns, strict=True)
        }
        whole = sum(sums[part] for part in parts)
        shares: NDArray[Any] = len(parts) * sums[RIGHT] / numpy.maximum(whole, 1)
        without = sums[ALL] == places.shape[-1]
        return numpy.where(sums[ANSWERED] + sums[GOLD] > 0, shares, without)

    keys = (RIGHT, ANSWERED, GOLD, ALL)
    return Statistic(keys, of_samples)


def _of_split(name: str, title: str) -> MetricSpec:
    return MetricSpec(name, title, format=".1%", statistic=name)


_ALL_ENTITIES = MetricSpec(
    ALL,
    "all entities right",
    format=".1%",
    per_question_key=ALL,
    is_share_of_questions=True,
)
_NOT_FOLLOWED = MetricSpec(
    "not_followed_rate",
    "answers without a list",
    direction="minimize",
    format=".1%",
    per_question_key="not_followed",
    is_share_of_questions=True,
    in_headline=False,
)
ENTITY_STATISTICS = {
    "entity_f1": _share_of(ANSWERED, GOLD),
    "entity_precision": _share_of(ANSWERED),
    "entity_recall": _share_of(GOLD),
}
OF_ENTITIES: dict[str, Metric] = {
    **{
        name: Metric(_of_split(name, title), entities_of, ENTITY_STATISTICS[name].value)
        for name, title in (
            ("entity_f1", "entity F1"),
            ("entity_precision", "entity precision"),
            ("entity_recall", "entity recall"),
        )
    },
    ALL: Metric(_ALL_ENTITIES, entities_of),
    "not_followed_rate": Metric(_NOT_FOLLOWED, entities_of),
}
