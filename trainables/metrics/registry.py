"""The metrics by name: those that ship, and those of other packages.

Another package has a metric of its own by an entry point of the group `sweep_orchestrator.metrics`,
whose name is the metric's and whose value is a `trainables.metrics.metric.Metric` of texts:

    [project.entry-points."sweep_orchestrator.metrics"]
    unit_match = "my_package.units:UNIT_MATCH"

What its `of_question` gives for a question has a value under the metric's own name, which is its
`per_question_key` unless it has an `of_split`; `of_split` reads whatever values were given. It must
be installed wherever trials run. A sweep's file chooses among metrics by name and can name
no module: only what somebody has installed is imported. A shipped metric is never replaced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from trainables.errors import InputError, did_you_mean
from trainables.metrics.metric import Metric, Scores, Statistic
from trainables.metrics.of_entities import ENTITY_STATISTICS, OF_ENTITIES
from trainables.metrics.of_labels import LABEL_STATISTICS, OF_LABELS
from trainables.metrics.of_text import OF_TEXT
from trainables.spec.metric import MetricSpec, TaskMetrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = "sweep_orchestrator.metrics"
KINDS: dict[str, Mapping[str, Metric]] = {
    "text": OF_TEXT,
    "labels": OF_LABELS,
    "entities": OF_ENTITIES,
}
STATISTICS: dict[str, Statistic] = {**LABEL_STATISTICS, **ENTITY_STATISTICS}


def find_metrics(kind: str, names: Sequence[str]) -> dict[str, Metric]:
    """The metrics of these names, for answers of this kind of KINDS.

    Raises InputError with all names that are unknown, or whose package can't be loaded.
    """
    found: dict[str, Metric] = {}
    faults: list[str] = []
    for name in names:
        try:
            found[name] = _find(kind, name)
        except InputError as error:
            faults += error.messages
    if faults:
        raise InputError(faults)
    return found


def task_metrics(kind: str, given: Any, default: Sequence[str]) -> TaskMetrics:
    """The metrics that a task's option `metrics` chooses, the first ranks.

    Of an option that is wrong (`metric_faults`) the default.
    """
    names = default if given is None or any(metric_faults(kind, given)) else given
    return declared(kind, find_metrics(kind, names))


def declared(kind: str, metrics: Mapping[str, Metric]) -> TaskMetrics:
    """What a task with these metrics, of this kind of KINDS, says of them to the driver."""
    return TaskMetrics(tuple(map(_declared, metrics.values())), of_labels=kind == "labels")


def find_statistic(metric: MetricSpec) -> Statistic:
    """What `metric.statistic` names. Raises InputError if its package can't be loaded."""
    if metric.statistic in STATISTICS:
        return STATISTICS[metric.statistic]
    of_split = _find("text", metric.statistic).of_split
    if of_split is None:
        raise InputError(f"metrics: {metric.statistic!r} is of single questions, not of a split.")
    return Statistic((), _of_samples(of_split))


def metric_faults(kind: str, given: Any) -> Iterator[str]:
    """What is wrong with the option `metrics`."""
    if not isinstance(given, list | tuple) or not given:
        yield f"data.metrics: got {given!r}; needs a list of {', '.join(KINDS[kind])}."
        return
    if len(set(map(str, given))) < len(given):
        yield f"data.metrics: a metric is there twice: {', '.join(map(str, given))}."
    for name in given:
        try:
            _find(kind, str(name))
        except InputError as error:
            yield from (f"data.{message}" for message in error.messages)


def scored(metrics: Mapping[str, Metric], gold: str, answer: str) -> dict[str, Any]:
    """A question's values by these metrics of texts.

    Raises InputError for a metric that gives no value under its name.
    """
    found: dict[str, Any] = {}
    for name, metric in metrics.items():
        found |= metric.of_question(gold, answer)
        if name not in found:
            raise InputError(f"metrics: {name!r} gave no value named {name!r} for a question.")
    return found


def values(kind: str, rows: Sequence[Scores]) -> dict[str, float]:
    """Every metric of this kind that was scored in the rows. Raises ValueError without any row."""
    if not rows:
        raise ValueError("no questions")
    others = [name for name in installed() if name in rows[0]] if kind == "text" else []
    metrics = {**KINDS[kind], **find_metrics(kind, others)}
    return {
        name: metric.value(rows)
        for name, metric in metrics.items()
        if metric.of_split is not None or metric.spec.per_question_key in rows[0]
    }


def _declared(metric: Metric) -> MetricSpec:
    """The spec; that of another package's metric of a split says where its statistic is."""
    spec = metric.spec
    is_of_split = metric.of_split is not None and not spec.statistic
    return replace(spec, statistic=spec.name) if is_of_split else spec


def _of_samples(
    of_split: Callable[[Sequence[Scores]], float],
) -> Callable[[Sequence[Sequence[Any]], NDArray[Any]], NDArray[Any]]:
    def of_samples(columns: Sequence[Sequence[Any]], places: NDArray[Any]) -> NDArray[Any]:
        import numpy

        rows = columns[0]
        samples = ([rows[place] for place in sample] for sample in places.tolist())
        return numpy.array([of_split(sample) for sample in samples], dtype=float)

    return of_samples


def _find(kind: str, name: str) -> Metric:
    shipped = KINDS[kind]
    if name in shipped:
        return shipped[name]
    if kind != "text" or name not in installed():
        raise InputError(
            f"metrics: no metric named {name!r}.{did_you_mean(name, [*shipped, *installed()])}"
        )
    return _loaded(installed()[name])


@functools.cache
def installed() -> Mapping[str, EntryPoint]:
    """The entry points of other packages. They are looked for once: that reads many files."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> Metric:
    package = point.dist.name if point.dist else "a package"
    try:
        metric = point.load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"metrics: {point.name!r} of {package} can't be loaded from {point.value}: {error}"
        ) from error
    if not isinstance(metric, Metric):
        raise InputError(
            f"metrics: {point.name!r} of {package} is {metric!r:.80}, which is no Metric."
        )
    key = metric.spec.per_question_key or (metric.of_split and point.name)
    if not metric.spec.name == key == point.name:
        raise InputError(
            f"metrics: {point.name!r} of {package} has the name {metric.spec.name!r} and the "
            f"per_question_key {metric.spec.per_question_key!r}; both must be {point.name!r} (the "
            "second may be empty if there is an of_split)."
        )
    return metric
