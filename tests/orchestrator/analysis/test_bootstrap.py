"""The paired bootstrap: its interval holds the truth, and it finds what there is and no more."""

from __future__ import annotations

import random

import numpy
import pytest

from orchestrator.analysis.bootstrap import BOOTSTRAP_SAMPLES, sampled, standard_errors
from orchestrator.analysis.significance import (
    BOOTSTRAP,
    any_difference,
    compare,
    compare_with_best,
    name_of_test,
    split_interval,
)
from orchestrator.runs.predictions import Predictions
from trainables.metrics.metric import ANSWERED_LABEL, GOLD_LABEL
from trainables.metrics.of_entities import OF_ENTITIES, entities_of, written
from trainables.metrics.of_labels import OF_LABELS, labels_of
from trainables.metrics.registry import STATISTICS

MACRO_F1 = OF_LABELS["macro_f1"].spec
LABELS = ("down", "flat", "up")


def _answers(seed: int, right: float, *, count: int = 300) -> Predictions:
    """Answers to the same questions, right with this probability."""
    gold = random.Random("gold").choices(LABELS, k=count)
    draw = random.Random(seed)
    answered = [one if draw.random() < right else draw.choice(LABELS) for one in gold]
    rows = [labels_of(*pair) for pair in zip(gold, answered, strict=True)]
    return Predictions.of_rows([{"id": f"q{at}", **row} for at, row in enumerate(rows)])


@pytest.mark.parametrize("name", ["macro_f1", "weighted_f1", "balanced_accuracy", "mcc"])
def test_samples_are_the_metric_of_questions_drawn_again(name: str) -> None:
    found = _answers(1, 0.5, count=40)
    gold, answered = (found.column(key) for key in (GOLD_LABEL, ANSWERED_LABEL))
    samples = sampled(STATISTICS[name], [gold, answered])
    assert len(samples) == 1 + BOOTSTRAP_SAMPLES
    draws = numpy.random.default_rng(7).integers(40, size=(BOOTSTRAP_SAMPLES, 40))
    for place, drawn in [(0, range(40)), *((1 + at, draws[at]) for at in range(20))]:
        rows = [labels_of(gold[each], answered[each]) for each in drawn]
        assert samples[place] == pytest.approx(OF_LABELS[name].value(rows))


def test_a_comparison_names_its_test_and_is_the_same_again() -> None:
    found = compare(_answers(1, 0.8), _answers(2, 0.5), metric=MACRO_F1)
    assert found.test == BOOTSTRAP and found.verdict == "better" and found.p_value < 1e-6
    assert found.low < found.difference < found.high
    assert found == compare(_answers(1, 0.8), _answers(2, 0.5), metric=MACRO_F1)
    back = compare(_answers(2, 0.5), _answers(1, 0.8), metric=MACRO_F1)
    assert back.verdict == "worse" and back.difference == pytest.approx(-found.difference)


def test_a_trial_against_itself_is_a_tie() -> None:
    found = compare(_answers(1, 0.8), _answers(1, 0.8), metric=MACRO_F1)
    assert (found.verdict, found.p_value, found.low, found.high) == ("tie", 1.0, 0.0, 0.0)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """200 sets of 300 answers; the truth is that of many more."""
    truth = OF_LABELS["macro_f1"].value(_rows(_answers(0, 0.6, count=60_000)))
    held = 0
    for seed in range(1, 201):
        low, high = split_interval(_answers(seed, 0.6), MACRO_F1) or (1.0, 0.0)
        held += low <= truth <= high
    assert 180 <= held <= 199


def test_equal_trials_are_seldom_told_apart() -> None:
    trials = [_answers(seed, 0.6) for seed in range(41)]
    worse = [compare(trials[0], other, metric=MACRO_F1).verdict for other in trials[1:]]
    assert worse.count("tie") >= 32
    assert (any_difference(trials[:6], metric=MACRO_F1) or 0.0) > 0.01


def test_among_several_the_best_is_compared_by_holm() -> None:
    others = [_answers(2, 0.5), _answers(3, 0.84), _answers(4, 0.2)]
    found = compare_with_best(_answers(1, 0.85), others, metric=MACRO_F1)
    assert [each.verdict for each in found if each] == ["better", "tie", "better"]
    assert all(each.comparisons == 3 for each in found if each)
    assert (any_difference([_answers(1, 0.85), *others], metric=MACRO_F1) or 1.0) < 1e-6


def test_answers_that_are_all_right_tell_no_error() -> None:
    assert split_interval(_answers(1, 1.0), MACRO_F1) is None


def test_answers_without_labels_have_no_interval() -> None:
    assert split_interval(Predictions.of_rows([{"id": "q", "em_acc": 1}]), MACRO_F1) is None


def test_standard_errors_are_those_of_the_draws() -> None:
    samples = numpy.array([[9.0, 1.0, 2.0, 3.0], [0.0, 5.0, 5.0, 5.0]])
    assert standard_errors(samples).tolist() == [1.0, 0.0]


def _rows(found: Predictions) -> list[dict[str, str]]:
    columns = [found.column(key) for key in (GOLD_LABEL, ANSWERED_LABEL)]
    return [
        {GOLD_LABEL: gold, ANSWERED_LABEL: answer} for gold, answer in zip(*columns, strict=True)
    ]


def _entities(seed: int, right: float) -> Predictions:
    draw, gold = random.Random(seed), random.Random("gold")
    rows = []
    for at in range(300):
        wanted = [(f"e{place}", gold.choice(LABELS)) for place in range(gold.choice([0, 1, 3]))]
        given = [(text, label if draw.random() < right else "none") for text, label in wanted]
        rows.append({"id": f"q{at}", **entities_of(written(wanted), written(given))})
    return Predictions.of_rows(rows)


@pytest.mark.parametrize("name", ["entity_f1", "entity_precision", "entity_recall"])
def test_entities_are_drawn_with_their_sentences(name: str) -> None:
    found = _entities(1, 0.5)
    statistic = STATISTICS[name]
    samples = sampled(statistic, [found.column(key) for key in statistic.keys])
    draws = numpy.random.default_rng(7).integers(300, size=(BOOTSTRAP_SAMPLES, 300))
    for place in range(20):
        drawn = [found.row(int(at)) for at in draws[place]]
        assert samples[1 + place] == pytest.approx(OF_ENTITIES[name].value(drawn))


def test_entity_f1_is_compared_by_the_bootstrap() -> None:
    metric = OF_ENTITIES["entity_f1"].spec
    found = compare(_entities(1, 0.8), _entities(2, 0.5), metric=metric)
    assert (found.test, found.verdict) == (BOOTSTRAP, "better")
    assert name_of_test(metric) == BOOTSTRAP == "paired bootstrap (seed 7)"
    low, high = split_interval(_entities(1, 0.8), metric) or (1.0, 0.0)
    assert low < 0.8 < high
