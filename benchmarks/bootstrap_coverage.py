"""How often the bootstrap's 95% intervals hold the truth, and tell trials apart that are equal.

    python -m benchmarks.bootstrap_coverage

Prints the table of docs/metrics.md and how long 200 trials of 1,000 questions take; about 90 s.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from orchestrator.analysis.significance import (
    any_difference,
    compare,
    compare_with_best,
    split_interval,
)
from orchestrator.runs.predictions import Predictions
from trainables.metrics.metric import Metric, Scores
from trainables.metrics.of_entities import OF_ENTITIES, entities_of, written
from trainables.metrics.of_labels import OF_LABELS, labels_of

RUNS, COUNTS = 300, (100, 300, 1000)
QUESTIONS_OF_TRUTH, RIGHT = 40_000, 0.6
LABELS, KINDS = ("down", "flat", "up"), ("ORG", "LOC", "PER")

Simulated = Callable[[str, str, int], Predictions]


def main() -> None:
    simulated: dict[str, tuple[Metric, Simulated]] = {
        "macro_f1": (OF_LABELS["macro_f1"], labels),
        "mcc": (OF_LABELS["mcc"], labels),
        "entity_f1": (OF_ENTITIES["entity_f1"], entities),
    }
    for name, (metric, answers) in simulated.items():
        truth = metric.value(_rows(answers("truth", "gold", QUESTIONS_OF_TRUTH)))
        for count in COUNTS:
            held, apart = coverage(metric, answers, count, truth=truth)
            print(f"{name}, {count} questions: held {held:.1%}, told apart {apart:.1%}", flush=True)
        print(
            f"{name}, 200 trials of 1,000 questions: {seconds(metric, answers):.1f} s", flush=True
        )


def coverage(
    metric: Metric, answers: Simulated, count: int, *, truth: float
) -> tuple[float, float]:
    """The shares of RUNS whose interval holds the truth, and whose two equal trials differ."""
    held = apart = 0
    for run in range(RUNS):
        one, other = (answers(f"{side}{run}", f"g{run}", count) for side in "ab")
        low, high = split_interval(one, metric.spec) or (truth, truth)
        held += low <= truth <= high
        apart += compare(one, other, metric=metric.spec).verdict != "tie"
    return held / RUNS, apart / RUNS


def seconds(metric: Metric, answers: Simulated) -> float:
    """To test all pairs of 200 trials, and the first against each other one."""
    trials = [answers(str(at), "gold", 1000) for at in range(200)]
    start = time.perf_counter()
    any_difference(trials, metric=metric.spec)
    compare_with_best(trials[0], trials[1:], metric=metric.spec)
    return time.perf_counter() - start


def labels(seed: str, gold_seed: str, count: int) -> Predictions:
    """Answers with one of three labels, of which one is three times as frequent as another."""
    draw = random.Random(seed)
    gold = random.Random(gold_seed).choices(LABELS, k=count, weights=(1, 3, 2))
    answered = [label if draw.random() < RIGHT else draw.choice(LABELS) for label in gold]
    return _predictions([labels_of(*pair) for pair in zip(gold, answered, strict=True)])


def entities(seed: str, gold_seed: str, count: int) -> Predictions:
    """Answers with none to four entities a sentence, of which a tenth is left out."""
    draw, gold = random.Random(seed), random.Random(gold_seed)
    rows = []
    for _ in range(count):
        number = gold.choice([0, 0, 1, 1, 2, 4])
        wanted = [(f"e{at}", gold.choice(KINDS)) for at in range(number)]
        kept = [entity for entity in wanted if draw.random() < 0.9]
        given = [
            (text, kind if draw.random() < RIGHT else draw.choice(KINDS)) for text, kind in kept
        ]
        rows.append(entities_of(written(wanted), written(given)))
    return _predictions(rows)


def _predictions(rows: Sequence[Scores]) -> Predictions:
    return Predictions.of_rows([{"id": f"q{at}", **row} for at, row in enumerate(rows)])


def _rows(found: Predictions) -> list[dict[str, object]]:
    return [found.row(at) for at in range(len(found.ids))]


if __name__ == "__main__":
    main()
