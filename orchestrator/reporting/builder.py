"""Builds the report of a run and writes its files."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.analysis.costs import TRAIN_FLOPS
from orchestrator.analysis.flip_study import Study, study
from orchestrator.analysis.flips import QUANTIZATION, Pair, pairs
from orchestrator.analysis.pareto import candidates, with_cost
from orchestrator.analysis.slices import has_slices
from orchestrator.reporting.document import Block, Code, Paragraph, Report, Section, Table
from orchestrator.reporting.results_csv import write_results
from orchestrator.reporting.sections import (
    costs,
    findings,
    flip_study,
    flips,
    labels,
    methods,
    tables,
)
from orchestrator.reporting.sections.batch_sizes import batch_sizes
from orchestrator.reporting.sections.cut_prompts import cut_prompts, lost_shots
from orchestrator.reporting.sections.headline import headline
from orchestrator.reporting.sections.repetitions import repetitions
from orchestrator.runs.predictions import PredictionReader
from orchestrator.runs.progress import (
    is_over,
    progress_text,
    remembered,
    resume_line,
    run_name,
    unscored,
    wanted_trials,
)
from orchestrator.runs.results import closed, damage, read_config, read_metrics, read_trials
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_result import TrialResult, ranked
from trainables.storage.run_folder import RunFolder


def build_report(
    run: RunFolder,
    trivial: Mapping[str, float] | None = None,
    *,
    is_driven: bool | None = None,
) -> Report:
    """The report of a run as it is on disk now, finished or not. Writes nothing.

    `trivial` has the values of the task's trivial baselines on the report split by name, by default
    those in sweep.json. `is_driven` is as for `results.read_trials`. Missing and damaged files are
    no error.
    """
    results, predictions = read_trials(run, is_driven=is_driven), PredictionReader()
    quantized = pairs(results, predictions, metric=read_metrics(run).task.verdict)
    return _report_of(run, results, predictions, quantized, trivial)


def write_report(
    run: RunFolder,
    trivial: Mapping[str, float] | None = None,
    *,
    is_driven: bool | None = None,
) -> Report:
    """Writes results.csv, flips.csv, report.md and, if a trial has finished, pareto.png; if it
    counted its FLOPs also flops.png, and if its questions have slices flips.png."""
    from orchestrator.reporting.flip_report import write_picture
    from orchestrator.reporting.plots.flops import plot_flops
    from orchestrator.reporting.plots.pareto import plot

    results, predictions = read_trials(run, is_driven=is_driven), PredictionReader()
    quantized = pairs(results, predictions, metric=read_metrics(run).task.verdict)
    write_results(run, results)
    flips.write_flips(run, quantized, predictions)
    plot(run, results)
    plot_flops(run, results)
    by_slice = _study(quantized, predictions, read_metrics(run))
    if by_slice is not None:
        write_picture(run, by_slice)
    report = _report_of(run, results, predictions, quantized, trivial)
    run.write_text(run.report_file, report.markdown())
    return report


def _report_of(
    run: RunFolder,
    results: Sequence[TrialResult],
    predictions: PredictionReader,
    quantized: Sequence[Pair],
    trivial: Mapping[str, float] | None,
) -> Report:
    (config, warnings), metrics = read_config(run), read_metrics(run)
    best = next(iter(ranked(results, metrics.ranking)), None)
    if best is None:
        told = _without_a_finished_trial(run, results, predictions, quantized, metrics)
    else:
        guesses = trivial or remembered(run).get("guesses", {})
        told = [
            headline(best, results, predictions, metrics=metrics, trivial=guesses),
            *_finished_sections(run, results, predictions, quantized, metrics),
        ]
    sections = [
        _progress(run, results, config),
        *told,
        findings.facts(results),
        findings.provenance(results),
        _paths(run, metrics),
        *_warnings(
            [
                *warnings,
                *closed(run),
                *unscored(run),
                *damage(run),
                *(text for item in results for text in item.warnings),
            ]
        ),
    ]
    return Report(f"Sweep {run_name(run)}", sections)


def _finished_sections(
    run: RunFolder,
    results: Sequence[TrialResult],
    predictions: PredictionReader,
    quantized: Sequence[Pair],
    metrics: SweepMetrics,
) -> list[Section]:
    """The sections after the best trial, of a sweep with a finished one."""
    primary = metrics.primary
    picture = run.pareto_file if candidates(results) else None
    shown = candidates(with_cost(results, cost=TRAIN_FLOPS), cost=TRAIN_FLOPS)
    curves = run.flops_file if shown else None
    return [
        findings.differences(results, predictions, metric=metrics.per_question),
        tables.best_trials(results, metrics=metrics),
        *labels.labels(results, predictions, metrics=metrics),
        *repetitions(results, metrics=metrics),
        *methods.methods(results, predictions, metrics=metrics),
        tables.pareto_front(results, metric=primary, picture=picture),
        *costs.flops(results, metric=primary, picture=curves),
        costs.spent(results, metrics=metrics),
        *batch_sizes(results),
        tables.cells(results, metrics=metrics),
        tables.baselines(results, metrics=metrics),
        _flips(run, quantized, predictions, metrics),
        findings.what_mattered(results, metrics=metrics),
        findings.not_finished(results),
        costs.prediction_error(results),
    ]


def _without_a_finished_trial(
    run: RunFolder,
    results: Sequence[TrialResult],
    predictions: PredictionReader,
    quantized: Sequence[Pair],
    metrics: SweepMetrics,
) -> list[Section]:
    """The reasons first, and only sections that have something to say."""
    sections = [findings.not_finished(results)] if results else []
    sections.append(Section("Best trial", [Paragraph("No trial has finished: there is none.")]))
    if any(item.is_baseline and item.finished for item in results):
        sections.append(tables.baselines(results, metrics=metrics))
    if quantized:
        sections.append(_flips(run, quantized, predictions, metrics))
    if any(item.is_trial and item.history for item in results):
        sections.append(findings.what_mattered(results, metrics=metrics))
    return sections


def _flips(
    run: RunFolder,
    quantized: Sequence[Pair],
    predictions: PredictionReader,
    metrics: SweepMetrics,
) -> Section:
    """What quantization changed; by slices only if the worker wrote them."""
    verdict, found = metrics.task.verdict, _study(quantized, predictions, metrics)
    told = flip_study.most_different(found, run) if found else []
    return flips.flips(quantized, run.flips_file, metric=verdict, study=told)


def _study(
    quantized: Sequence[Pair], predictions: PredictionReader, metrics: SweepMetrics
) -> Study | None:
    verdict = metrics.task.verdict
    if verdict is None or not any(has_slices(predictions(pair.reference)) for pair in quantized):
        return None
    return study(quantized, predictions, metric=verdict, factor=QUANTIZATION)


def _progress(run: RunFolder, results: Sequence[TrialResult], config: Mapping[str, Any]) -> Section:
    wanted = wanted_trials(config)
    blocks: list[Block] = [Paragraph(progress_text(run, results, wanted))]
    blocks += [*cut_prompts(results), *lost_shots(results)]
    if not is_over(run, results, wanted):
        blocks += [Paragraph("To go on:"), Code(resume_line(run))]
    return Section("Progress", blocks)


def _paths(run: RunFolder, metrics: SweepMetrics) -> Section:
    paths = [
        ("this report", run.report_file),
        ("all trials", run.results_file),
        ("what quantization changed", run.flips_file),
        ("Pareto plot", run.pareto_file),
        (f"{metrics.primary.title} against FLOPs", run.flops_file),
        ("trial folders", run.path / "trials"),
        ("MLflow database", run.tracking_database),
    ]
    plots = (run.pareto_file, run.flops_file)  # written only where there is something to show
    rows = [
        (what, _published(run, path)) for what, path in paths if path not in plots or path.exists()
    ]
    browse = shlex.join(["mlflow", "ui", "--backend-store-uri", run.tracking_uri])
    ask = shlex.join(["python", "-m", "orchestrator.ask", run.place, "--gpu-memory", "12GiB"])
    return Section("Where it lies", [Table(["", "path"], rows, 2), Code(browse), Code(ask)])


def _published(run: RunFolder, path: Path) -> str:
    """The path or URL of a file; MLflow's database is on this disk also for a run in a bucket."""
    if run.mirror is None or not path.is_relative_to(run.path):
        return str(path)
    return f"{run.place}/{path.relative_to(run.path).as_posix()}"


def _warnings(texts: Sequence[str]) -> list[Section]:
    if not texts:
        return []
    return [Section("Warnings", [Paragraph(text) for text in texts])]
