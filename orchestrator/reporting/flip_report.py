"""`report --flips FACTOR`: the study of flips by any knob, with its table and its picture."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.analysis.flip_study import Study, study
from orchestrator.analysis.flips import comparable, level, pairs
from orchestrator.reporting.document import Paragraph, Report, Section
from orchestrator.reporting.plots.flips import flips_picture
from orchestrator.reporting.sections import flip_study, flips
from orchestrator.runs.predictions import PredictionReader
from orchestrator.runs.progress import run_name
from orchestrator.runs.results import read_metrics, read_trials
from orchestrator.runs.trial_result import TrialResult
from trainables.errors import InputError, did_you_mean
from trainables.spec.knobs import KNOBS
from trainables.storage.run_folder import RunFolder


def write_flip_report(run: RunFolder, factor: str) -> Report:
    """The study of the pairs that differ in a knob only; writes its table and its picture.

    Raises InputError if there is no such knob, or all finished trials have one value of it.
    """
    results, predictions = read_trials(run), PredictionReader()
    _check(results, factor)
    metric = read_metrics(run).task.verdict
    title = f"Sweep {run_name(run)}: flips by {factor}"
    found = pairs(results, predictions, metric=metric, by=factor)
    flips.write_flips(run, found, predictions, factor=factor)
    if metric is None or not found:
        text = flips.NO_VERDICT if metric is None else _no_pair(factor)
        return Report(title, [Section("Which sentences break", [Paragraph(text)])])
    of_factor = study(found, predictions, metric=metric, factor=factor)
    write_picture(run, of_factor)
    return Report(title, flip_study.whole_study(of_factor, run))


def write_picture(run: RunFolder, found: Study) -> None:
    """Writes the picture of a study that has slices."""
    picture = flips_picture(found, name=run_name(run))
    if picture is not None:
        run.write_bytes(run.flips_files(found.factor)[1], picture)


def _check(results: Sequence[TrialResult], factor: str) -> None:
    if factor not in KNOBS:
        raise InputError(f"--flips: {factor!r} is no factor.{did_you_mean(factor, KNOBS)}")
    levels = {name: _levels(results, name) for name in KNOBS}
    if len(levels[factor]) < 2:
        varied = [name for name, found in levels.items() if len(found) > 1]
        only = f"have only {levels[factor][0]}" if levels[factor] else "do not read it"
        hint = f"Those that vary: {', '.join(varied)}." if varied else "No knob varies among them."
        raise InputError(
            f"--flips: {factor} does not vary: the finished trials {only}. {hint}"
            if comparable(results)
            else f"--flips: no trial has finished, so none differ in {factor}."
        )


def _levels(results: Sequence[TrialResult], factor: str) -> list[str]:
    found = (level(item, factor) for item in comparable(results))
    return sorted({each for each in found if each is not None})


def _no_pair(factor: str) -> str:
    return (
        f"No two finished configurations differ in {factor} only. Search one factor at a time "
        "around a reference (`search.algorithm: one_factor`), or a `grid`, or name such "
        "configurations under `search.start_with`."
    )
