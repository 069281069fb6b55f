"""Metrics by name: equal to independent computations, and right for the gold itself."""

from __future__ import annotations

import functools
import itertools
import random
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from sklearn import metrics as sklearn_metrics

from trainables.errors import InputError
from trainables.metrics import registry
from trainables.metrics.metric import ANSWERED_LABEL, GOLD_LABEL, Metric
from trainables.metrics.of_entities import OF_ENTITIES, entities_of, written
from trainables.metrics.of_labels import OF_LABELS, f1_by_label, labels_of
from trainables.metrics.of_text import OF_TEXT, rouge_l, token_f1
from trainables.metrics.registry import KINDS, find_metrics, metric_faults
from trainables.spec.metric import MetricSpec

CASES = 200
LABELS = ("down", "flat", "up")


def _random_rows(seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    count = draw.randrange(1, 60)
    gold = [draw.choice(LABELS) for _ in range(count)]
    answered = [draw.choice([each, *LABELS, ""]) for each in gold]
    return [{**labels_of(*pair)} for pair in zip(gold, answered, strict=True)]


@pytest.mark.parametrize("seed", range(CASES))
def test_metrics_of_labels_are_scikit_learns(seed: int) -> None:
    rows = _random_rows(seed)
    gold = [row[GOLD_LABEL] for row in rows]
    answered = [row[ANSWERED_LABEL] for row in rows]
    labels = sorted(set(gold))  # an answer without a label is no class
    average = functools.partial(
        sklearn_metrics.f1_score, gold, answered, labels=labels, zero_division=0.0
    )
    recall = sklearn_metrics.recall_score(gold, answered, labels=labels, average="macro")
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(gold, answered),
        "macro_f1": average(average="macro"),
        "weighted_f1": average(average="weighted"),
        "balanced_accuracy": recall,
        "mcc": sklearn_metrics.matthews_corrcoef(gold, answered),
        "not_followed_rate": answered.count("") / len(rows),
    }
    found = {name: metric.value(rows) for name, metric in OF_LABELS.items()}
    assert found == pytest.approx(expected)
    assert f1_by_label(rows) == pytest.approx(dict(zip(labels, average(average=None), strict=True)))


@pytest.mark.parametrize("seed", range(CASES))
def test_metrics_of_entities_are_scikit_learns(seed: int) -> None:
    """Micro averages over each possible entity of each sentence."""
    draw = random.Random(seed)
    possible = [(text, label) for text in ("Acme", "Paris", "Jo: Co") for label in ("ORG", "LOC")]
    flags = [[[draw.random() < 0.4 for _ in possible] for _ in range(9)] for _ in range(2)]
    gold, answered = (
        [written(list(itertools.compress(possible, row))) for row in side] for side in flags
    )
    rows = [entities_of(*pair) for pair in zip(gold, answered, strict=True)]
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        *flags, average="micro", zero_division=0.0
    )
    expected = {"entity_precision": precision, "entity_recall": recall, "entity_f1": f1}
    found = {name: OF_ENTITIES[name].value(rows) for name in expected}
    assert found == pytest.approx(expected)


def test_every_metric_is_best_for_the_gold_itself() -> None:
    texts = ["up 5%", "it fell", "-1,234.5", "0"]
    for name, metric in OF_TEXT.items():
        rows = [{**metric.of_question(text, text)} for text in texts if name != "numeric_match"]
        rows += [{**metric.of_question("-1,234.5 EUR", "about -1234.50")}] * (name[0] == "n")
        assert metric.value(rows) == 1.0
    rows = [{**labels_of(label, label)} for label in LABELS]
    for metric in OF_LABELS.values():
        assert metric.value(rows) == (metric.spec.direction == "maximize")


@pytest.mark.parametrize(
    ("gold", "answer", "f1", "rouge"),
    [
        ("the net sales rose", "Net sales rose.", 6 / 7, 6 / 7),
        ("a b c d", "d c b a", 1.0, 0.25),
        ("a a b", "a", 0.5, 0.5),
        ("", "", 1.0, 1.0),
        ("a", "", 0.0, 0.0),
    ],
)
def test_overlaps_of_words(gold: str, answer: str, f1: float, rouge: float) -> None:
    assert token_f1(gold, answer)["token_f1"] == pytest.approx(f1)
    assert rouge_l(gold, answer)["rouge_l"] == pytest.approx(rouge)


def test_every_row_says_where_its_values_are() -> None:
    for metrics in KINDS.values():
        for name, metric in metrics.items():
            assert metric.spec.name == name
            row = metric.of_question("up", "down")
            key = metric.spec.per_question_key
            assert key in row if key else metric.of_split is not None


def test_unknown_names_are_refused_all_at_once() -> None:
    with pytest.raises(InputError) as error:
        find_metrics("labels", ["accuracy", "f1_macro", "nonsense"])
    assert len(error.value.messages) == 2
    assert list(metric_faults("text", ["exact_match", "exact_match"])) == [
        "data.metrics: a metric is there twice: exact_match, exact_match."
    ]


def _of_length(gold: str, answer: str) -> dict[str, Any]:
    return {"same_length": len(gold) == len(answer)}


SAME_LENGTH = Metric(
    MetricSpec("same_length", "same length", per_question_key="same_length"), _of_length
)


def test_a_metric_of_another_package_is_found_and_never_replaces_a_shipped_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = f"{__name__}:SAME_LENGTH"
    points = {
        "same_length": EntryPoint("same_length", here, registry.GROUP),
        "exact_match": EntryPoint("exact_match", here, registry.GROUP),
        "broken": EntryPoint("broken", "no.such.module:X", registry.GROUP),
    }
    monkeypatch.setattr(registry, "installed", lambda: points)
    found = find_metrics("text", ["same_length", "exact_match"])
    assert found["same_length"] is SAME_LENGTH
    assert found["exact_match"] is OF_TEXT["exact_match"]
    rows = [{**SAME_LENGTH.of_question("ab", "cd")}]
    assert registry.values("text", rows) == {"same_length": 1.0}
    with pytest.raises(InputError, match="metrics: 'broken' of a package can't be loaded"):
        find_metrics("text", ["broken"])
