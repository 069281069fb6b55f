"""The section on repetitions: each configuration's mean and spread over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from orchestrator.formatting import format_bare, format_metric
from orchestrator.reporting.document import Block, Paragraph, Section, Table
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_label import common_words
from orchestrator.runs.trial_result import Split, TrialResult
from trainables.spec.knobs import KNOBS
from trainables.spec.metric import MetricSpec

HEADING = "Over repetitions"
ON_TERMINAL = 12  # rows
HOW = (
    "Trials that differ in {knobs} alone are one configuration: the mean, the sample standard "
    "deviation and the value of each, by {knobs}, of those that have finished."
)
OTHER_QUESTIONS = (
    "Each split_seed asks other questions, so that the best single trial may owe its place to its "
    "questions. Compare configurations by their means."
)
_REPEATED = [name for name, row in KNOBS.items() if row.is_repetition]
_Draw = tuple[int, ...]  # the values of _REPEATED


@dataclass(frozen=True)
class Configuration:
    """Its finished trials, or the finished baselines of a base, by draw."""

    label: str
    draws: dict[_Draw, TrialResult]

    def values(self, metric: MetricSpec, split: Split) -> dict[_Draw, float]:
        """The metric of each draw; of those that were not judged on the split there is none."""
        found = {
            draw: (item.report_metrics if split == "report" else item.metrics).get(metric.name)
            for draw, item in self.draws.items()
        }
        return {draw: value for draw, value in found.items() if value is not None}


def repetitions(results: Sequence[TrialResult], *, metrics: SweepMetrics) -> list[Section]:
    """The primary metric of each configuration over its repetitions, the best mean first; no
    section if no configuration has two that have finished."""
    metric = metrics.primary
    found = [each for each in _configurations(results) if len(_values(each, metric)) > 1]
    if not found:
        return []
    places = _varied(found)
    knobs = [_REPEATED[place] for place in places]
    found.sort(key=lambda each: (-metric.gain(mean(_values(each, metric))), each.label))
    headers = ["configuration", "split", "trials", f"{metric.title}, mean", "deviation", "each"]
    rows = [row for each in found for row in _rows(each, metric, places)]
    blocks: list[Block] = [
        Table(headers, rows, words=2, on_terminal=ON_TERMINAL),
        Paragraph(HOW.format(knobs=" and ".join(knobs))),
    ]
    blocks += [Paragraph(OTHER_QUESTIONS)] if "split_seed" in knobs else []
    return [Section(HEADING, blocks)]


def _configurations(results: Sequence[TrialResult]) -> list[Configuration]:
    groups: dict[str, dict[_Draw, TrialResult]] = {}
    for item in results:
        if item.finished:
            same = {name: value for name, value in item.knobs.items() if name not in _REPEATED}
            key = repr((item.role, item.model_digest, sorted(same.items())))
            groups.setdefault(key, {})[_draw(item)] = item
    return [
        Configuration(common_words([item.label for item in draws.values()]), draws)
        for draws in groups.values()
    ]


def _draw(item: TrialResult) -> _Draw:
    return tuple(int(item.knobs.get(name, KNOBS[name].default)) for name in _REPEATED)


def _varied(configurations: Sequence[Configuration]) -> list[int]:
    """The places of the repeated knobs that differ within a configuration."""
    return [
        place
        for place in range(len(_REPEATED))
        if any(len({draw[place] for draw in each.draws}) > 1 for each in configurations)
    ]


def _values(configuration: Configuration, metric: MetricSpec) -> list[float]:
    return list(configuration.values(metric, "selection").values())


def _rows(
    configuration: Configuration, metric: MetricSpec, places: Sequence[int]
) -> list[tuple[str, ...]]:
    """A row for each split on which two draws at least were judged."""
    splits: tuple[Split, ...] = ("selection", "report")
    by_split = {split: configuration.values(metric, split) for split in splits}
    return [
        (configuration.label, split, str(len(values)), *_spread(values, metric, places))
        for split, values in by_split.items()
        if len(values) > 1
    ]


def _spread(
    values: Mapping[_Draw, float], metric: MetricSpec, places: Sequence[int]
) -> tuple[str, str, str]:
    each = ", ".join(
        f"{format_bare(metric, value)} ({', '.join(str(draw[place]) for place in places)})"
        for draw, value in sorted(values.items())
    )
    found = list(values.values())
    return format_metric(metric, mean(found)), format_bare(metric, stdev(found)), each
