"""The study of flips: planted effects are found, and nothing where there is none to find."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.flip_study import Study, study
from orchestrator.analysis.flips import pairs
from orchestrator.analysis.slices import MOST_LEVELS, slice_levels, slice_values
from orchestrator.report import main as report
from orchestrator.reporting.builder import build_report, write_report
from orchestrator.runs.predictions import PredictionReader, Predictions
from orchestrator.runs.results import read_trials
from tests.orchestrator.reporting.test_builder import section
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder
from trainables.tasks.exact_match import EM_ACC

QUESTIONS = 200
LONGEST = range(150, QUESTIONS)  # a question has one word more than the one before
SIMULATED = 200
Right = Sequence[bool | int]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "sentences")


def answered(run: RunFolder, right: Right, *, slices: bool = True, **knobs: Any) -> TrialFolder:
    folder = add_trial(run, right=[int(each) for each in right], **knobs)
    folder.write_predictions(rows(right, slices=slices))
    folder.write_summary(folder.summary() or {})
    return folder


def rows(right: Right, *, slices: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{n}",
            "kind": ("sum", "ratio")[n % 2],
            "question": "rose " * (n + 1) + ("by 3" if n % 3 else "by 3/12"),
            "prediction": "x",
            "gold": "y",
            **({"slices": {"label": ("up", "down", "flat")[n % 3]}} if slices else {}),
            "em_acc": bool(score),
        }
        for n, score in enumerate(right)
    ]


def studied(run: RunFolder, by: str = "quantization") -> Study:
    predictions = PredictionReader()
    found = pairs(read_trials(run), predictions, metric=EM_ACC, by=by)
    return study(found, predictions, metric=EM_ACC, factor=by)


def all_right() -> list[bool]:
    return [True] * QUESTIONS


def without_long_ones() -> list[bool]:
    return [n not in LONGEST or n % 2 == 0 for n in range(QUESTIONS)]


def planted(run: RunFolder, **more: Any) -> RunFolder:
    answered(run, all_right(), **more)
    answered(run, without_long_ones(), quantization="nf4", **more)
    return run


def test_only_the_slice_whose_sentences_break_is_found(run: RunFolder) -> None:
    (level,) = studied(planted(run)).levels
    assert (level.reference_level, level.level, level.pairs) == ("none", "nf4", 1)
    lengths = {each.level: each for each in level.slices if each.name == "length"}
    assert [(each.lost, each.gained) for each in lengths.values()] == [(0, 0)] * 3 + [(25, 0)]
    longest = lengths["4th quarter: 153..202"]
    assert longest.asked == 50 and longest.is_significant and longest.elsewhere == 0
    assert longest.difference == -0.5 and longest.interval[0] < -0.5 < longest.interval[1] < 0
    assert longest.p_value < 25 * 2 * 0.5**25
    assert not any(each.is_significant for name, each in lengths.items() if "4th" not in name)


def test_holm_counts_every_slice_of_the_study(run: RunFolder) -> None:
    answered(run, all_right())
    answered(run, [n not in range(0, 12, 2) for n in range(QUESTIONS)], quantization="nf4")
    (level,) = studied(run).levels
    (sums,) = [each for each in level.slices if each.level == "sum"]
    assert (sums.lost, sums.gained) == (6, 0)
    assert level.whole.p_value == pytest.approx(2 * 0.5**6)  # 0.03: by itself significant
    assert sums.p_value == pytest.approx(2 * 0.5**6 * len(level.slices), rel=0.2)


@pytest.mark.slow
def test_chance_alone_is_found_in_one_study_of_twenty_at_most(run: RunFolder) -> None:
    """Family-wise: any slice at all; answers of equal quality that flip in a fifth of questions."""
    drawn = random.Random(7)
    columns = Predictions.of_rows(rows(all_right()))
    slices = slice_values(columns)
    answered(run, all_right())
    answered(run, all_right(), quantization="nf4")
    results = read_trials(run)
    false = 0
    for _ in range(SIMULATED):
        before = [drawn.random() < 0.6 for _ in range(QUESTIONS)]
        after = [drawn.random() < 0.6 if drawn.random() < 0.4 else each for each in before]
        reader = PredictionReader()
        for item, right in zip(results, (before, after), strict=True):
            answers = Predictions(columns.ids, {**columns.columns, "em_acc": tuple(right)})
            reader._read[item.trial_id, "selection"] = answers
        found = pairs(results, reader, metric=EM_ACC)
        (level,) = study(found, reader, metric=EM_ACC, factor="quantization").levels
        false += any(each.is_significant for each in level.slices)
    assert slices and false <= 0.05 * SIMULATED + 2 * (0.05 * 0.95 * SIMULATED) ** 0.5


def test_several_pairs_count_each_question_once(run: RunFolder) -> None:
    """Four copies of one pair are not four times the evidence."""
    for rank in (4, 8, 16, 32):
        planted(run, rank=rank)
    (level,) = studied(run).levels
    assert level.pairs == 4
    assert (level.whole.asked, level.whole.lost) == (QUESTIONS, 25)


def test_a_question_that_as_many_pairs_gain_as_lose_does_not_count(run: RunFolder) -> None:
    for rank, (before, after) in {4: (1, 0), 8: (0, 1)}.items():
        answered(run, [before] * 4, rank=rank)
        answered(run, [after] * 4, rank=rank, quantization="nf4")
    (level,) = studied(run).levels
    assert (level.whole.lost, level.whole.gained, level.whole.p_value) == (0, 0, 1)


def test_any_knob_is_a_factor_and_its_default_the_reference(run: RunFolder) -> None:
    for rank in (4, 8, 16):
        answered(run, all_right() if rank == 8 else without_long_ones(), rank=rank)
    levels = studied(run, by="rank").levels
    assert {(each.reference_level, each.level) for each in levels} == {("8", "4"), ("8", "16")}


def test_a_method_is_compared_whatever_only_its_own_knobs_are(run: RunFolder) -> None:
    answered(run, all_right(), method="lora", rank=4)
    answered(run, without_long_ones(), method="full")
    (level,) = studied(run, by="method").levels
    assert (level.reference_level, level.level, level.whole.lost) == ("lora", "full", 25)


def test_models_are_compared_by_their_names(run: RunFolder) -> None:
    answered(run, all_right(), model="models/a")
    answered(run, without_long_ones(), model="models/b")
    (level,) = studied(run, by="model").levels
    assert (level.reference_level, level.level) == ("a", "b")


def test_untrained_bases_are_studied_where_nothing_else_is(run: RunFolder) -> None:
    add_baseline(run, [1, 1, 0, 0])
    add_baseline(run, [1, 0, 1, 0], quantization="nf4")
    assert studied(run).is_of_baselines


def test_numbers_are_quartiles_and_few_ones_themselves() -> None:
    quarters = slice_levels([float(n) for n in range(8)])
    assert quarters[::2] == [f"{n} quarter: {r}" for n, r in
                             zip(("1st", "2nd", "3rd", "4th"),
                                 ("0..1", "2..3", "4..5", "6..7"), strict=True)]  # fmt: skip
    assert slice_levels([0.0, 2.0, None, 2.0]) == ["0", "2", None, "2"]
    assert slice_levels([0.0] * 20 + [1.0, 2.0, 3.0, 4.0]) == ["0"] * 20 + ["1..4"] * 4
    words = slice_levels([f"w{n}" for n in range(30)] + ["w0", "w1"])
    assert words[0] == "w0" and words[20] == "others" and len(set(words)) == MOST_LEVELS


def test_rows_of_older_versions_have_the_slices_that_their_question_tells() -> None:
    values = slice_values(Predictions.of_rows(rows([1, 0], slices=False)))
    assert set(values) == {"kind", "length", "figures", "rare_words"}
    assert values["figures"] == (2.0, 1.0) and values["length"] == (3.0, 4.0)


def test_the_report_says_the_three_that_differ_most_and_writes_the_picture(run: RunFolder) -> None:
    text = section(write_report(planted(run)).markdown(), "What quantization changed")
    assert "length is '4th quarter: 153..202' (25 lost, 0 gained of 50)" in text
    assert "--flips quantization" in text and "flips.png" in text
    assert run.flips_files("quantization")[1].read_bytes().startswith(b"\x89PNG")
    with run.flips_file.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert {row["label"] for row in found} == {"up", "down", "flat"}
    assert (found[0]["reference_score_em_acc"], found[0]["other_score_em_acc"]) == ("1", "0")
    assert float(found[0]["length"]) > 150 and found[0]["rare_words"]


def test_without_slices_of_the_worker_the_report_is_as_before(run: RunFolder) -> None:
    planted(run, slices=False)
    assert "slice" not in section(build_report(run).markdown(), "What quantization changed")


def test_the_command_prints_the_study_of_older_runs_too(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(run, slices=False, rank=4)
    assert report([str(run.path), "--flips", "quantization"]) == 0
    said = capsys.readouterr().out
    assert "length is '4th quarter: 153..202'" in said and "Holm" in said
    planted(run, rank=8)
    assert report([str(run.path), "--by", "rank"]) == 0
    table, picture = run.flips_files("rank")
    assert picture.exists() and table.read_text().splitlines()[0].startswith("base,untrained,")
    assert ",trial,rank," in table.read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        ("quantisation", "'quantisation' is no factor. Did you mean 'quantization'?"),
        ("rank", "rank does not vary: the finished trials have only 8. Those that vary: quant"),
        (
            "effective_batch_size",
            "effective_batch_size does not vary: the finished trials do not read it.",
        ),
    ],
)
def test_a_factor_that_is_none_or_does_not_vary_is_refused(
    run: RunFolder, capsys: pytest.CaptureFixture[str], factor: str, said: str
) -> None:
    assert report([str(planted(run).path), "--flips", factor]) == 2
    assert f"--flips: {said}" in capsys.readouterr().err


def test_trials_with_the_same_answers_are_told_as_such(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for quantization in ("none", "nf4"):
        answered(run, all_right(), quantization=quantization)
    assert report([str(run.path), "--flips", "quantization"]) == 0
    assert "No question flips" in capsys.readouterr().out


def test_without_a_finished_trial_or_a_pair_it_says_so(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report([str(run.path), "--flips", "rank"]) == 2
    assert "no trial has finished" in capsys.readouterr().err
    answered(run, all_right(), rank=4)
    answered(run, all_right(), rank=8, learning_rate=1e-3)
    assert report([str(run.path), "--flips", "rank"]) == 0
    assert "No two finished configurations differ in rank only" in capsys.readouterr().out
