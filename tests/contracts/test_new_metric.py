"""A metric of another package is chosen by name, scored, and compared; only its package is new."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from orchestrator.analysis.bootstrap import BOOTSTRAP_SAMPLES
from orchestrator.analysis.significance import BOOTSTRAP, PAIRED_T, compare, split_interval
from orchestrator.reporting.sections.headline import split_interval_text
from orchestrator.runs.predictions import Predictions
from tests.trainables.tasks.own_data import own_file
from trainables.errors import InputError
from trainables.metrics import registry
from trainables.spec.metric import TaskMetrics
from trainables.tasks.registry import make_task, task_metrics

PACKAGE = "counted_words"
NAMES = ("word_share", "words_off", "misnamed")
CODE = """
from trainables.metrics.metric import Metric
from trainables.spec.metric import MetricSpec

def counts(gold, answer):
    wanted, given = len(gold.split()), len(answer.split())
    return {"word_share": given, "wanted_words": wanted, "words_off": float(abs(wanted - given))}

def share(rows):
    return sum(row["word_share"] for row in rows) / sum(row["wanted_words"] for row in rows)

OFF = MetricSpec("words_off", "words off", "words", "minimize", per_question_key="words_off")
word_share = Metric(MetricSpec("word_share", "word share", format=".1%"), counts, share)
words_off = Metric(OFF, counts)
misnamed = Metric(OFF, counts)
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What pip leaves of a package that has metrics: a module and its metadata."""
    packages = tmp_path / "packages"
    metadata = packages / "counted_words-1.0.dist-info"
    metadata.mkdir(parents=True)
    (packages / f"{PACKAGE}.py").write_text(CODE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: counted-words\nVersion: 1.0\n")
    points = [f"{name} = {PACKAGE}:{name}" for name in (*NAMES, "exact_match")]
    text = "\n".join([f"[{registry.GROUP}]", *points, ""])
    (metadata / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(str(packages))
    registry.installed.cache_clear()
    yield
    registry.installed.cache_clear()
    sys.modules.pop(PACKAGE, None)


def _metrics(*names: str) -> TaskMetrics:
    return task_metrics("completion", {"metrics": list(names)})


def _answers(seed: int, *, count: int = 60) -> Predictions:
    draw = random.Random(seed)
    metrics = registry.find_metrics("text", ["word_share", "words_off"])
    questions = (
        ("up " * draw.randrange(1, 4), "up " * draw.randrange(1, 4 + seed)) for _ in "." * count
    )
    rows = [registry.scored(metrics, gold, answer) for gold, answer in questions]
    return Predictions.of_rows([{"id": f"q{at}", **row} for at, row in enumerate(rows)])


def test_it_is_imported_when_it_is_named_and_not_before(tmp_path: Path) -> None:
    options = own_file.completion(tmp_path)
    task = make_task("completion", {**options, "metrics": ["exact_match"]})
    assert PACKAGE not in sys.modules
    assert [spec.name for spec in task.used_metrics.specs] == ["exact_match"]
    task = make_task("completion", {**options, "metrics": ["word_share", "exact_match"]})
    assert PACKAGE in sys.modules
    (example, *_) = task.load("selection")
    found = task.aggregate([task.score(example, task.target(example))] * 2)
    assert found["word_share"] == found["exact_match"] == 1.0


def test_one_of_a_split_has_an_interval_and_is_compared_by_the_bootstrap() -> None:
    (metric,) = _metrics("word_share").specs
    one, other = _answers(1), _answers(4)
    found = compare(one, other, metric=metric)
    assert (found.test, found.verdict, found.count) == (BOOTSTRAP, "worse", 60)
    low, high = split_interval(one, metric) or (0.0, 0.0)
    given, wanted = (numpy.array(one.column(key)) for key in ("word_share", "wanted_words"))
    draws = numpy.random.default_rng(7).integers(60, size=(BOOTSTRAP_SAMPLES, 60))
    error = (given[draws].sum(1) / wanted[draws].sum(1)).std(ddof=1)
    assert high - low == pytest.approx(2 * 1.959964 * error)


def test_one_of_questions_has_students_interval_and_test() -> None:
    (metric,) = _metrics("words_off").specs
    answers = _answers(1)
    assert compare(answers, _answers(4), metric=metric).test == PAIRED_T
    low, high = split_interval(answers, metric) or (0.0, 0.0)
    values = numpy.array(answers.column("words_off"))
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(2.000995 * values.std(ddof=1) / 60**0.5)
    assert split_interval_text(metric, answers) == f"{low:.3f}–{high:.3f}"


def test_a_shipped_one_is_not_replaced_and_one_under_another_name_is_refused() -> None:
    shipped = registry.find_metrics("text", ["exact_match"])["exact_match"]
    assert shipped is registry.KINDS["text"]["exact_match"]
    with pytest.raises(InputError, match="'misnamed' of counted-words has the name 'words_off'"):
        registry.find_metrics("text", ["misnamed"])
    with pytest.raises(InputError, match=r"no metric named 'word_shares'.*'word_share'"):
        registry.find_metrics("text", ["word_shares"])
