"""The section on labels: answers beside gold, F1 by label, confusions, of the best and its base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.analysis.labels import LabelCounts, label_counts
from orchestrator.formatting import counted, format_percent
from orchestrator.reporting.document import Block, Paragraph, Section, Table
from orchestrator.reporting.sections.headline import base_of
from orchestrator.runs.predictions import PredictionReader
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_result import Split, TrialResult, ranked
from trainables.metrics.metric import NO_LABEL

HEADING = "Labels"
NONE = "(no label)"
MOST_LABELS = 12  # of a matrix; of more labels the commonest confusions are shown
MOST_CONFUSIONS = 20
TRIALS_NAMED = 8
BAR_CELLS = 10  # of a bar that is all answers


def labels(
    results: Sequence[TrialResult], predictions: PredictionReader, *, metrics: SweepMetrics
) -> list[Section]:
    """The labels of the best trial and its untrained base, on the report split if both have it.

    No section unless the task's metrics are of labels, or where no predictions are left.
    """
    if not metrics.task.of_labels:
        return []
    best = next(iter(ranked(results, metrics.ranking)), None)
    base = base_of(best, results) if best else None
    named = {"best": best, "untrained": base}
    items = {name: item for name, item in named.items() if item is not None}
    split, found = _counts(items, predictions)
    blocks: list[Block] = [*_always_the_same(results, predictions)]
    if found:
        blocks += [_answers(found, split=split), *_confusions(found)]
    return [Section(HEADING, blocks)] if blocks else []


def _counts(
    items: Mapping[str, TrialResult], predictions: PredictionReader
) -> tuple[Split, dict[str, LabelCounts]]:
    splits: tuple[Split, ...] = ("report", "selection")
    for split in splits:
        counts = {name: label_counts(predictions(item, split)) for name, item in items.items()}
        found = {name: each for name, each in counts.items() if each is not None}
        if found and (len(found) == len(items) or split == "selection"):
            return split, found
    return "selection", {}


def _always_the_same(
    results: Sequence[TrialResult], predictions: PredictionReader
) -> list[Paragraph]:
    """A sentence on trained trials, and one on untrained bases, that answer one label always."""
    finished = [item for item in results if item.finished]
    groups = {
        "finished trial": [item for item in finished if item.is_trial],
        "finished untrained base": [item for item in finished if item.is_baseline],
    }
    told = []
    for name, items in groups.items():
        counts = {item.trial_id: label_counts(predictions(item)) for item in items}
        same = {key: each.one_label for key, each in counts.items() if each is not None}
        same = {key: label for key, label in same.items() if label is not None}
        if same:
            told.append(Paragraph(_same_text(same, counted(len(items), name)), strong=True))
    return told


def _same_text(same: Mapping[str, str | None], of_how_many: str) -> str:
    answers = " or ".join(sorted({_name(label or NO_LABEL) for label in same.values()}))
    ids = ", ".join(f"`{key}`" for key in list(same)[:TRIALS_NAMED])
    more = f" and {len(same) - TRIALS_NAMED} more" if len(same) > TRIALS_NAMED else ""
    return (
        f"{len(same)} of {of_how_many} gave (nearly) always one answer on the selection split, "
        f"{answers}, though the gold has others: {ids}{more}. Their accuracy is that answer's "
        "share of the gold."
    )


def _answers(found: Mapping[str, LabelCounts], *, split: Split) -> Table:
    """The histograms of gold and answers, and the F1 of each label."""
    first = next(iter(found.values()))
    known = sorted({label for each in found.values() for label in each.labels})
    unnamed = any(each.answered(NO_LABEL) for each in found.values())
    rows = [
        (
            _name(label),
            _share(first.gold(label), first.questions),
            *(_share(each.answered(label), each.questions) for each in found.values()),
            *(format_percent(each.f1.get(label)) for each in found.values()),
        )
        for label in [*known, *([NO_LABEL] if unnamed else [])]
    ]
    headers = [
        "label",
        "gold",
        *(f"answers, {name}" for name in found),
        *(f"F1, {name}" for name in found),
    ]
    caption = f"Answers beside the gold of the {split} split, {first.questions} questions:"
    return Table(headers, rows, words=2 + len(found), caption=caption)


def _share(count: int, questions: int) -> str:
    bar = "█" * round(BAR_CELLS * count / questions) if questions else ""
    return f"{count} ({format_percent(count / questions)}) {bar}".rstrip() if questions else "0"


def _confusions(found: Mapping[str, LabelCounts]) -> list[Block]:
    return [
        _matrix(name, each) if len(each.labels) <= MOST_LABELS else _commonest(name, each)
        for name, each in found.items()
    ]


def _matrix(name: str, counts: LabelCounts) -> Table:
    answers = [*counts.labels, *([NO_LABEL] if counts.answered(NO_LABEL) else [])]
    rows = [
        (_name(gold), *(str(counts.confusions.get((gold, answer), 0)) for answer in answers))
        for gold in counts.labels
    ]
    caption = f"Confusions, {name}: a row for each label of the gold, a column for each answer."
    return Table(["gold", *map(_name, answers)], rows, caption=caption)


def _commonest(name: str, counts: LabelCounts) -> Table:
    rows = [
        (_name(gold), _name(answer), str(count))
        for gold, answer, count in counts.mistakes()[:MOST_CONFUSIONS]
    ]
    caption = f"The commonest confusions, {name}, of {len(counts.labels)} labels:"
    return Table(["gold", "answer", "questions"], rows, words=2, caption=caption)


def _name(label: str) -> str:
    return label if label != NO_LABEL else NONE
