"""Metrics of answers that list entities, each as `text: label`.

An entity is right if the gold has one of the same text and label; one that is answered more often
than the gold has it is wrong. F1, precision and recall are over all entities of a split (micro
averages), so that sentences without entities, and tokens outside of them, add nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from trainables.metrics.metric import Metric, Scores
from trainables.spec.metric import MetricSpec

NO_ENTITIES = "none"  # what is written where there is none
BETWEEN = "; "  # of two entities
RIGHT, ANSWERED, GOLD = "entities_right", "entities_answered", "entities_gold"

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
        "all_entities": wanted == given and (said_none or bool(given)),
        "not_followed": not given and not said_none,
    }


def _share_of(*parts: str) -> Callable[[Sequence[Scores]], float]:
    """The right entities as a share of the mean of these counts; 1 where there are none at all."""

    def value(rows: Sequence[Scores]) -> float:
        right, whole = (sum(row[key] for row in rows for key in keys) for keys in ([RIGHT], parts))
        if not sum(row[key] for row in rows for key in (ANSWERED, GOLD)):
            return float(all(row["all_entities"] for row in rows))
        return len(parts) * right / whole if whole else 0.0

    return value


def _of_split(name: str, title: str) -> MetricSpec:
    return MetricSpec(name, title, format=".1%")


_ALL_ENTITIES = MetricSpec(
    "all_entities",
    "all entities right",
    format=".1%",
    per_question_key="all_entities",
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
OF_ENTITIES: dict[str, Metric] = {
    "entity_f1": Metric(
        _of_split("entity_f1", "entity F1"), entities_of, _share_of(ANSWERED, GOLD)
    ),
    "entity_precision": Metric(
        _of_split("entity_precision", "entity precision"), entities_of, _share_of(ANSWERED)
    ),
    "entity_recall": Metric(
        _of_split("entity_recall", "entity recall"), entities_of, _share_of(GOLD)
    ),
    "all_entities": Metric(_ALL_ENTITIES, entities_of),
    "not_followed_rate": Metric(_NOT_FOLLOWED, entities_of),
}
