"""The sections of conclusions: whether trials differ, what mattered, which did not finish."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.importance import (
    NO_DIFFERENCE,
    Effect,
    Importance,
    importance,
    knob_verdicts,
)
from orchestrator.analysis.knob_levels import level_name
from orchestrator.analysis.significance import (
    Comparison,
    any_difference,
    asked_alike,
    compare_with_best,
    name_of_test,
)
from orchestrator.formatting import (
    counted,
    difference_unit,
    format_measured,
    format_p_value,
    format_signed,
)
from orchestrator.reporting.document import Block, Paragraph, Section, Table
from orchestrator.reporting.sections.headline import (
    comparison_text,
    no_common_values,
    value_text,
)
from orchestrator.reporting.sections.tables import loss_order
from orchestrator.runs.predictions import PredictionReader
from orchestrator.runs.progress import Group, unfinished
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_label import PATHS, distinct_names
from orchestrator.runs.trial_result import TrialResult, ranked
from trainables.spec.metric import EVAL_LOSS, MetricSpec

SIGNIFICANT = 0.05
TIES_NAMED = 8


def differences(
    results: Sequence[TrialResult], predictions: PredictionReader, *, metric: MetricSpec
) -> Section:
    """Whether the finished trials differ in the metric on the selection split.

    If not, it says 'no difference in ... found' and gives their order by eval loss. Of
    several `split_seed`s those that answered the best one's questions are compared.
    """
    heading = "Do the finished trials differ?"
    order = ranked(results, metric)
    if len(order) < 2:
        text = "Fewer than two trials have finished: there is nothing to compare."
        return Section(heading, [Paragraph(text)])
    every = [predictions(item) for item in order]
    alike = asked_alike(every, metric=metric)
    answers, others = [every[at] for at in alike], len(order) - len(alike)
    order = [order[at] for at in alike]
    p_value = any_difference(answers, metric=metric)
    if p_value is None:
        why = no_common_values(metric)
        text = f"{why[0].upper()}{why[1:]}: not to be compared."
        return Section(heading, [Paragraph(text)])
    pairs = len(order) * (len(order) - 1) // 2
    test = (
        name_of_test(metric)
        if pairs == 1
        else f"{name_of_test(metric)} of {pairs} pairs, Bonferroni"
    )
    asked = f"; {others} more answered other questions" if others else ""
    trials = f"{len(order)} trials{asked}"
    tail = f"({test}, on the selection split, {trials}, {format_p_value(p_value)})"
    if p_value >= SIGNIFICANT:
        found = Paragraph(f"no difference in {metric.title} found {tail}.", strong=True)
        return Section(heading, [found, Paragraph("By eval loss:"), loss_order(results)])
    blocks: list[Block] = [Paragraph(f"Yes: {metric.title} differs among them {tail}.")]
    compared = compare_with_best(answers[0], answers[1:], metric=metric)
    if compared[0] is not None:
        names = f"`{order[0].trial_id}` against the next, `{order[1].trial_id}`"
        blocks.append(Paragraph(f"{names}: {comparison_text(compared[0], metric)}."))
    return Section(heading, [*blocks, *_ties(order[1:], compared)])


def what_mattered(results: Sequence[TrialResult], *, metrics: SweepMetrics) -> Section:
    """For each knob the difference between its levels, at the first rung and at the end."""
    blocks: list[Block] = []
    for metric in dict.fromkeys([metrics.ranking, EVAL_LOSS]):
        for item in importance(results, metric=metric):
            blocks += _importance_blocks(item, _value_names(results))
    if not blocks:
        return Section("What mattered", [Paragraph("No trial has been judged yet.")])
    how = (
        "Differences between a knob's levels in a linear model, with 95% intervals (t, wider of "
        "pooled and HC3 variance, shared among a knob's pairs); interactions are not looked for. "
        "'Adjusted' holds the other knobs equal; where trials are too few for that, a knob that "
        "the search varied together with another can show the other's effect."
    )
    return Section("What mattered", [*blocks, Paragraph(how)])


def not_finished(results: Sequence[TrialResult]) -> Section:
    """The trials that were stopped, failed, infeasible or are not done, by reason."""
    groups = unfinished(results)
    heading = "Stopped, failed, infeasible"
    if not groups:
        return Section(heading, [Paragraph("None: every trial that was started has finished.")])
    rows = [
        (group.state, group.reason or "no reason given", _some_ids(group), str(group.count))
        for group in groups
    ]
    return Section(heading, [Table(["state", "why (an example)", "trials", "count"], rows, 3)])


def facts(results: Sequence[TrialResult]) -> Section:
    """The facts about the prompts of all trials, as context, evidence, cut prompts; those that a
    task does not know are left out."""
    return Section("What was asked", [_values([_said(item.facts) for item in results])])


def provenance(results: Sequence[TrialResult]) -> Section:
    """The software and hardware of all trials, with every value that occurs."""
    return Section("Provenance", [_values([item.provenance for item in results])])


def _ties(others: Sequence[TrialResult], compared: Sequence[Comparison | None]) -> list[Block]:
    """The trials than which the best is not significantly better."""
    found = zip(others, compared, strict=True)
    ties = [(item, each) for item, each in found if each is not None and each.verdict == "tie"]
    if not ties:
        return []
    _, one = ties[0]
    test = "p >= 0.05" if one.comparisons == 1 else f"{one.test} with each, Holm, p >= 0.05"
    names = ", ".join(f"`{item.trial_id}` ({item.label})" for item, _ in ties[:TIES_NAMED])
    more = f" and {len(ties) - TIES_NAMED} more" if len(ties) > TIES_NAMED else ""
    text = f"{len(ties)} of the {len(others)} others can't be told from the best ({test})"
    return [Paragraph(f"{text}: {names}{more}.")]


def _importance_blocks(item: Importance, names: Mapping[str, Mapping[str, str]]) -> list[Block]:
    """`names`: how values of knobs are told, where these are told in short."""
    part = "the full budget" if item.fraction == 1.0 else f"{100 * item.fraction:g}% of the budget"
    seen = f"{item.trials} of {counted(item.started, 'trial')}"
    left = "censored: the others were stopped before it or have not come so far"
    blocks: list[Block] = [
        Paragraph(f"{item.metric.title} at {part} ({seen}{'; ' + left if item.censored else ''}):")
    ]
    verdicts = knob_verdicts(item.effects)
    mattered = [knob for knob, found in verdicts.items() if found]
    same = [knob for knob, found in verdicts.items() if not found]
    if mattered:
        blocks.append(Paragraph(f"Mattered: {', '.join(mattered)}.", strong=True))
    if same:
        blocks.append(Paragraph(f"{NO_DIFFERENCE.capitalize()}: {', '.join(same)}."))
    if item.effects:
        unit = difference_unit(item.metric) or "difference"
        headers = ["knob", "from", "to", unit, "95% interval", "trials", "adjusted", ""]
        rows = [
            _effect_row(effect, item.metric, names.get(effect.knob, {})) for effect in item.effects
        ]
        blocks.append(Table(headers, rows, words=3))
    return [*blocks, *(Paragraph(f"Note: {note}.") for note in item.notes)]


def _value_names(results: Sequence[TrialResult]) -> dict[str, dict[str, str]]:
    """Short names of the models and prompts of the trials, by knob and path."""
    paths = {
        knob: [level_name(item.knobs[knob]) for item in results if knob in item.knobs]
        for knob in PATHS
    }
    return {knob: distinct_names(found) for knob, found in paths.items()}


def _effect_row(effect: Effect, metric: MetricSpec, names: Mapping[str, str]) -> tuple[str, ...]:
    reach = 1.0 if metric.is_percentage else math.inf  # two shares differ by no more
    numbers = [
        format_signed(metric, min(max(x, -reach), reach))
        for x in (effect.difference, effect.low, effect.high)
    ]
    return (
        effect.knob,
        names.get(effect.low_level, effect.low_level),
        names.get(effect.high_level, effect.high_level),
        numbers[0],
        f"{numbers[1]} to {numbers[2]}",
        str(effect.trials),
        "yes" if effect.adjusted else "no",
        effect.verdict,
    )


def _some_ids(group: Group) -> str:
    more = f" and {group.count - 3} more" if group.count > 3 else ""
    return ", ".join(group.trial_ids[:3]) + more


def _values(mappings: Sequence[Mapping[str, Any]]) -> Block:
    seen: dict[str, list[Any]] = {}
    for mapping in mappings:
        for name, value in _flat(mapping):
            seen.setdefault(name, []).append(value)
    if not seen:
        return Paragraph("Not recorded.")
    return Table(["", "value"], [(name, _several(found)) for name, found in seen.items()], words=2)


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in _flat(facts) if value != ""}


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in mapping.items():
        nested = isinstance(value, Mapping)
        found += _flat(value, f"{prefix}{name}.") if nested else [(f"{prefix}{name}", value)]
    return found


def _several(values: Sequence[Any]) -> str:
    """Each value and how many trials have it; of numbers that were measured the range."""
    if any(isinstance(value, float) for value in values) and all(map(_is_number, values)):
        return format_measured(values)
    counts = Counter(map(value_text, values))
    if len(counts) == 1:
        return next(iter(counts))
    shown = ", ".join(f"{text} ({counted(n, 'trial')})" for text, n in counts.most_common(4))
    others = counted(len(counts) - 4, "other value")
    return f"{shown}, {others}" if len(counts) > 4 else shown


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
