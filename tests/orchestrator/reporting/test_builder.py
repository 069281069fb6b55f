"""The report is correct for a run folder in any state, on the terminal and in report.md."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import ask, status
from orchestrator.report import main
from orchestrator.reporting.builder import build_report, write_report
from orchestrator.reporting.sections.headline import base_of
from orchestrator.runs.lease import Lease
from orchestrator.runs.predictions import read_predictions
from orchestrator.runs.progress import unfinished
from orchestrator.runs.results import read_trials
from tests.orchestrator.run_builder import CONFIG, add_baseline, add_trial, new_run, outcomes
from trainables.storage.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "quickstart")


def markdown(run: RunFolder, **guesses: float) -> str:
    return build_report(run, guesses).markdown()


def section(text: str, heading: str) -> str:
    return text.split(f"## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


def test_the_headline_compares_the_best_with_its_base_and_with_guessing(run: RunFolder) -> None:
    add_baseline(run, outcomes(5), report_right=outcomes(10), quantization="nf4")
    add_baseline(run, outcomes(50), report_right=outcomes(50))
    best = add_trial(run, right=outcomes(60), report_right=outcomes(55), quantization="nf4")
    add_trial(run, right=outcomes(40), report_right=outcomes(90))
    text = section(markdown(run, best_constant=0.08, copy_a_cell=0.21), "Best trial")
    assert best.trial_id in text and "small nf4 r8 a16" in text
    assert "| EmAcc | selection | 60.0% | 50.2–69.1 | 100 |" in text
    assert "| EmAcc | report | 55.0% | 45.2–64.4 | 100 |" in text
    assert "untrained base (small nf4 untrained) on the report split: +45.0 points" in text
    assert "exact McNemar p < 0.0001, 100 questions): better" in text
    assert "(copy a cell) is right in 21.0%" in text and "in 55.0%: +34.0 points" in text


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("train_peak_memory_bytes", ["small none", "memory | selection | 1.96 GiB", "+3.91 GiB"]),
        (["train_peak_memory_bytes", "em_acc"], ["small none", "selection | 1.96 GiB", "+3.91"]),
        ("eval_peak_memory_bytes", ["small none", "memory | selection | 1.00 GiB", "+2.00 GiB"]),
        ("eval_loss", ["small fp4", "eval loss | selection | 1.4000", "-0.200"]),
        ("em_acc_strict", ["small fp4", "strict EmAcc | selection | 60.0%", "+20.0"]),
    ],
)
def test_a_sweep_by_any_objective_prints_its_values_as_they_are_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: Any, told: list[str]
) -> None:
    run = new_run(tmp_path / "sweep", {**CONFIG, "objective": objective})
    for number, quantization in enumerate(("none", "nf4", "fp4")):
        add_baseline(run, outcomes(5), report_right=outcomes(4), quantization=quantization)
        sizes = {"train": 2.1e9 * (number + 1), "eval": 2**30 * (number + 1)}
        measured = {f"{phase}_peak_memory_bytes": size for phase, size in sizes.items()}
        for rank in (4, 8):
            scores: Any = {"right": outcomes(40 + 10 * number), "report_right": outcomes(30)}
            add_trial(run, **scores, metrics=measured, quantization=quantization, rank=rank)
    text = markdown(run)
    headline, mattered = section(text, "Best trial"), section(text, "What mattered")
    assert all(words in headline + mattered for words in told)
    assert "on the report split: +26.0 points" in headline
    assert "It has no score on" not in headline
    for command in (status.main, ask.main):
        assert command([str(run.path)]) == 0
        assert "0000" not in capsys.readouterr().out


def test_questions_with_a_number_for_gold_are_compared_apart(run: RunFolder) -> None:
    base = add_baseline(run, outcomes(0), report_right=[0] * 10)
    best = add_trial(run, right=outcomes(60), report_right=[1] * 10)
    for folder in (base, best):
        rows, _ = read_predictions(folder, "report")
        words = [{**row, "gold": "yes", "numeric": False} for row in rows[:4]]
        folder.write_predictions([*words, *rows[4:]], "report")
        folder.write_report_score(folder.report_score() or {})
    text = section(markdown(run), "Best trial")
    assert "Numeric questions only: +100.0 points" in text and "6 questions): better" in text
    assert "| numeric EmAcc | report | 100.0% | 61.0–100.0 | 6 |" in text


def test_no_difference_is_said_in_so_many_words_with_the_order_by_loss(run: RunFolder) -> None:
    low = add_trial(run, right=outcomes(11), metrics={"eval_loss": 1.1}, quantization="nf4")
    high = add_trial(run, right=outcomes(12), metrics={"eval_loss": 1.3}, rank=4)
    text = section(markdown(run), "Do the finished trials differ?")
    assert "no difference in EmAcc found" in text and "exact McNemar" in text
    assert text.index(low.trial_id) < text.index(high.trial_id) and "+0.2000" in text


def test_a_difference_is_named_with_its_test(run: RunFolder) -> None:
    for rank, right in ((1, 10), (2, 70), (4, 12)):
        add_trial(run, right=outcomes(right), rank=rank)
    text = section(markdown(run), "Do the finished trials differ?")
    assert "no difference" not in text and "Bonferroni" in text
    assert "+58.0 points" in text and "better" in text


@pytest.mark.parametrize("shared", [0, 12])
def test_trials_that_answered_other_questions_are_left_out(shared: int, run: RunFolder) -> None:
    """Splits of several seeds share a few questions by chance."""
    add_trial(run, right=outcomes(70), rank=2)
    add_trial(run, right=outcomes(12), rank=1)
    apart = add_trial(run, right=outcomes(60), rank=4)
    rows, _ = read_predictions(apart, "selection")
    others = [{**row, "id": f"other {row['id']}"} for row in rows[shared:]]
    apart.write_predictions([*rows[:shared], *others])
    text = section(markdown(run), "Do the finished trials differ?")
    assert "2 trials; 1 more answered other questions" in text
    assert "+58.0 points" in text and apart.trial_id not in text


def test_ties_with_the_best_are_named(run: RunFolder) -> None:
    add_trial(run, right=outcomes(70), rank=2)
    tied = add_trial(run, right=outcomes(69), rank=4, quantization="nf4")
    worse = add_trial(run, right=outcomes(12), rank=1)
    text = section(markdown(run), "Do the finished trials differ?")
    test = "exact McNemar with each, Holm, p >= 0.05"
    assert f"1 of the 2 others can't be told from the best ({test}): `{tied.trial_id}`" in text
    assert "exact McNemar, Holm of 2 comparisons, p = 1, 100 questions): tie" in text
    assert worse.trial_id not in text


def test_a_cell_with_no_finished_trial_is_censored(run: RunFolder) -> None:
    add_trial(run, right=outcomes(60))
    add_trial(run, right=outcomes(9), state="stopped", reason="ASHA", quantization="nf4")
    add_baseline(run, outcomes(4), quantization="nf4")
    text = section(markdown(run), "Model x quantization")
    row = next(line for line in text.splitlines() if "nf4" in line)
    assert "1 stopped" in row and "censored: no finished trial" in row and "4.0%" in row
    assert "60.0% (50.2–69.1)" in text


def test_reasons_that_differ_in_numbers_only_are_one_group(run: RunFolder) -> None:
    for rank in (1, 2, 3, 4):
        add_trial(run, state="stopped", reason=f"below the cutoff 0.{rank} at 25%", rank=rank)
    add_trial(run, state="failed", reason="loss is nan", rank=8)
    groups = unfinished(read_trials(run))
    assert [(group.state, group.count) for group in groups] == [("failed", 1), ("stopped", 4)]
    assert "and 1 more | 4 |" in section(markdown(run), "Stopped, failed, infeasible")


@pytest.mark.parametrize("state", [None, "stopped", "failed", "infeasible", "interrupted"])
def test_a_sweep_with_nothing_finished_has_a_report(run: RunFolder, state: str | None) -> None:
    if state is not None:
        add_trial(run, state=state, reason="why [so] | x", rungs={0.25: 0.1})
    write_report(run)
    text = run.report_file.read_text()
    assert "No trial has finished" in text and run.results_file.exists()
    assert not run.pareto_file.exists() and "pareto.png" not in text and "flops.png" not in text


def test_the_resume_line_stands_until_all_trials_are_done(tmp_path: Path) -> None:
    run = new_run(tmp_path / "my sweep", {**CONFIG, "search": {"trials": 2}})
    add_trial(run, right=outcomes(60))
    add_trial(run, state="infeasible", reason="too large", rank=4)
    text = section(markdown(run), "Progress")
    assert "1 of 2 trials are done: 1 finished, 1 infeasible." in text
    assert "python -m orchestrator.sweep" in text and "--name 'my sweep'" in text
    add_trial(run, state="stopped", reason="ASHA", rank=2)
    assert "orchestrator.sweep" not in section(markdown(run), "Progress")


def test_a_driver_that_was_interrupted_leaves_nothing_running(run: RunFolder) -> None:
    add_trial(run, right=outcomes(60))
    add_trial(run, rank=4).discard_result()
    with Lease(run):
        assert "1 finished, 1 running" in section(markdown(run), "Progress")
        text = section(write_report(run, is_driven=False).markdown(), "Progress")
    assert "1 finished, 1 interrupted" in text and "orchestrator.sweep" in text
    assert "interrupted" in run.results_file.read_text()


def test_an_exhausted_space_has_no_resume_line(run: RunFolder) -> None:
    add_trial(run, right=outcomes(60))
    run.write_state({"trials_done": 1, "exhausted": True})
    text = section(markdown(run), "Progress")
    assert "1 of 8 trials are done: 1 finished. The space is exhausted" in text
    assert "orchestrator.sweep" not in text
    add_trial(run, state="interrupted", rank=4)
    assert "orchestrator.sweep" in section(markdown(run), "Progress")


def test_the_base_is_the_one_of_the_same_model_precision_and_prompt(tmp_path: Path) -> None:
    run = new_run(tmp_path / "sweep")
    others: list[dict[str, Any]] = [
        {"model": "elsewhere/small", "quantization": "nf4"},  # reads the same in a table
        {"model": "m/small", "quantization": "nf4", "compute_dtype": "bfloat16"},
        {"model": "m/small", "quantization": "nf4", "double_quantization": True},
        {"model": "m/small", "quantization": "nf4", "target": "program"},
        {"model": "m/small", "quantization": "nf4", "answer": "likelihood"},
    ]
    for knobs in others:
        add_baseline(run, outcomes(50), **knobs)
    best = add_trial(run, right=outcomes(60), model="m/small", quantization="nf4")
    assert "has not been judged" in section(markdown(run), "Best trial")
    longer = {"sequence_length": 4096}  # a space that varies it has one baseline, at its longest
    base = add_baseline(run, outcomes(5), model="m/small", quantization="nf4", **longer)
    results = {item.trial_id: item for item in read_trials(run)}
    found = base_of(results[best.trial_id], list(results.values()))
    assert found is not None and found.trial_id == base.trial_id
    another_prompt = replace(found, task_identity={"context": "full", "prompt": "another"})
    assert base_of(results[best.trial_id], [another_prompt]) is None


def test_terminal_and_file_hold_the_same(run: RunFolder) -> None:
    add_trial(run, right=outcomes(60), rungs={0.25: 0.2, 1.0: 0.6})
    add_trial(run, state="failed", reason="[red]not markup[/red]", rank=4)
    report = write_report(run)
    screen = io.StringIO()
    report.print(screen)
    shown = " ".join(screen.getvalue().split())
    for text in (
        "60.0% (50.2–69.1)",
        "[red]not markup[/red]",
        "loss",
        "0123abc",
        "evidence",
        "gold",
    ):
        assert text in shown and text in report.markdown()
    assert "\x1b" not in screen.getvalue()
    assert run.report_file.read_text() == report.markdown()
    assert "![EmAcc against training peak memory](pareto.png)" in report.markdown()


def test_what_mattered_is_said_per_rung(run: RunFolder) -> None:
    for place in range(12):
        large = place % 2
        value = 0.1 + 0.3 * large + 0.01 * (place % 3)
        state = "finished" if large else "stopped"
        add_trial(run, right=outcomes(round(100 * value)), state=state, rungs={0.25: value},
                  model="large" if large else "small", rank=place + 1)  # fmt: skip
    text = section(markdown(run), "What mattered")
    assert "EmAcc at 25% of the budget (12 of 12 trials)" in text
    assert "**Mattered: model.**" in text and "No difference found: rank." in text
    assert "EmAcc at the full budget (6 of 12 trials; censored" in text


def test_the_command_prints_and_refuses_what_is_no_run(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    add_trial(run, right=outcomes(60))
    assert main([str(run.path)]) == 0
    assert "60.0%" in capsys.readouterr().out and run.report_file.exists()
    assert main([str(run.path.parent / "quickstrat")]) == 2
    assert "Did you mean 'quickstart'" in capsys.readouterr().err


def test_models_of_one_basename_have_rows_of_their_own(tmp_path: Path) -> None:
    models = ["exp1/final", "exp2/final"]
    run = new_run(tmp_path / "sweep", {**CONFIG, "space": {"model": models, "rank": [4, 8, 16]}})
    for model, right in zip(models, (30, 70), strict=True):
        add_baseline(run, outcomes(5), model=model)
        for rank in (4, 8, 16):
            add_trial(run, right=outcomes(right), model=model, rank=rank)
        add_trial(run, right=outcomes(20), model=model, method="full")
    text = markdown(run)
    cells = section(text, "Model x quantization")
    assert "| exp1/final | none | 4 finished |" in cells and "30.0% (21.9–39.6)" in cells
    assert "| exp2/final | none | 4 finished |" in cells and "70.0% (60.4–78.1)" in cells
    methods = section(text, "Methods")
    assert "| exp1/final | lora | 3 of 3 |" in methods and "| exp2/final | full |" in methods
    assert "exp1/final, lora against full on" in methods
    assert "| model | exp1/final | exp2/final |" in section(text, "What mattered")
    assert "exp1/final none untrained" in section(text, "Untrained baselines")


def test_batch_size_studies_are_told_apart(tmp_path: Path) -> None:
    space = {"model": "m", "batch_size": [1, 2], "optimizer": ["adamw", "sgd"]}
    run = new_run(tmp_path / "sweep", {**CONFIG, "space": space})
    alone = {"device_shared": 0, "examples_per_second": 10.0}
    for optimizer in ("adamw", "sgd"):
        for size in (1, 2):
            add_trial(run, right=outcomes(50), metrics=alone, model="m", batch_size=size,
                      optimizer=optimizer)  # fmt: skip
    text = section(markdown(run), "Speed and memory by batch size")
    assert "m none lora on cpu adamw:" in text and "m none lora on cpu sgd:" in text


def test_a_sweep_whose_trials_all_failed_says_why_first(run: RunFolder) -> None:
    for rank in (2, 4, 8):
        add_trial(run, state="failed", reason="model: no such layer", rank=rank)
    screen = io.StringIO()
    build_report(run).print(screen)
    shown = screen.getvalue().splitlines()
    assert next(place for place, line in enumerate(shown) if "no such layer" in line) < 15
    text = markdown(run)
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["Progress", "Stopped, failed, infeasible", "Best trial", "What was asked",
                        "Provenance", "Where it lies"]  # fmt: skip
    assert text.count("no such layer") == 1


def test_without_a_finished_trial_what_was_judged_is_still_told(run: RunFolder) -> None:
    add_baseline(run, outcomes(5))
    add_baseline(run, outcomes(6), quantization="nf4")
    add_trial(run, state="stopped", reason="stopped early", rungs={0.25: 0.1})
    text = markdown(run)
    for heading in ("Untrained baselines", "What quantization changed", "What mattered"):
        assert f"## {heading}\n" in text
    assert "## Pareto" not in text and "## What the best trials cost" not in text


def test_cut_prompts_are_said_in_the_head_by_model(tmp_path: Path) -> None:
    run = new_run(tmp_path / "sweep", {**CONFIG, "space": {"model": ["a/m", "b/m"]}})
    for seed, (model, cut, lost) in enumerate([("a/m", 873, 60), ("b/m", 1, 0), ("b/m", 1, 0)]):
        folder = add_trial(run, right=outcomes(60), model=model, seed=seed)
        splits = {"train": {"examples": 881}, "selection": {"examples": 60}}
        found = {"train_prompts_cut": cut, "eval_prompts_cut": lost, "sequence_limit": 128}
        folder.write_summary({**(folder.summary() or {}), "facts": {**splits, **found}})
    head = section(markdown(run), "Progress")
    assert (
        "**a/m at 128 tokens: 873 of 881 prompts of the train split and 60 of 60 prompts of the "
        "selection split lost part of their context.**"
    ) in head
    assert "**b/m at 128 tokens: 1 of 881 prompts of the train split lost part of their" in head
    assert head.count("lost part of their context") == 2 and "larger sequence_length" in head


def test_prompts_are_cut_by_context_and_by_what_is_retrieved(run: RunFolder) -> None:
    ways: list[dict[str, Any]] = [
        {"context": "full"},
        {"context": "retrieved", "k": 10},
        {"context": "retrieved", "k": 3},
    ]
    for cut, knobs in zip((41, 7, 0), ways, strict=True):
        folder = add_trial(run, right=outcomes(60), **knobs)
        facts = {"selection": {"examples": 60, "context": knobs["context"]}, "sequence_limit": 128}
        summary = folder.summary() or {}
        folder.write_summary({**summary, "facts": {**facts, "eval_prompts_cut": cut}})
    head = section(markdown(run), "Progress")
    assert "at 128 tokens (context full): 41 of 60 prompts" in head
    retrieved = "(context retrieved, retriever bm25, scope page, k 10): 7 of 60 prompts"
    assert retrieved in head and head.count("lost part of their context") == 2


def test_prompts_that_were_not_cut_are_no_news(run: RunFolder) -> None:
    folder = add_trial(run, right=outcomes(60))
    folder.write_summary({**(folder.summary() or {}), "facts": {"train_prompts_cut": 0}})
    assert "lost part" not in markdown(run)


def test_shots_that_did_not_fit_are_said_in_the_head(run: RunFolder) -> None:
    for seed, lost in enumerate([12, 60, 0]):
        knobs: dict[str, Any] = {"method": "prompting", "shots": 8, "shot_seed": seed}
        folder = add_trial(run, right=outcomes(60), **knobs)
        facts = {"selection": {"examples": 60}, "eval_questions_with_fewer_shots": lost}
        facts |= {"sequence_limit": 128}
        folder.write_summary({**(folder.summary() or {}), "facts": facts})
    head = section(markdown(run), "Progress")
    assert "at 128 tokens: 60 of 60 questions of the selection split had no room for all 8" in head
    assert head.count("had no room") == 1 and "shots_too_long: refuse" in head


def test_measured_facts_are_rounded_and_counts_agree_with_their_nouns(run: RunFolder) -> None:
    for rank, seconds, parameters in ((2, 0.09389627300004122, 64), (4, 0.1, 128), (8, 0.5, 128)):
        folder = add_trial(run, right=outcomes(60), rank=rank)
        facts = {"save_seconds": seconds, "trainable_parameters": parameters}
        folder.write_summary({**(folder.summary() or {}), "facts": facts})
    asked = section(markdown(run), "What was asked")
    assert "| save_seconds | 0.0939 to 0.5 |" in asked
    assert "| trainable_parameters | 128 (2 trials), 64 (1 trial) |" in asked


def test_what_a_task_does_not_know_of_its_prompts_is_left_out(run: RunFolder) -> None:
    facts: dict[str, Any] = {"context": "", "selection": {"examples": 60, "evidence": ""}}
    folder = add_trial(run, right=outcomes(60))
    folder.write_summary({**(folder.summary() or {}), "facts": facts})
    asked = section(markdown(run), "What was asked")
    assert "| selection.examples | 60 |" in asked
    assert "context" not in asked and "evidence" not in asked
