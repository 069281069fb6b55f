"""The overhead benchmark: its figures are computed correctly from times, and it still runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import overhead
from benchmarks.timeline import RunTimes, TrialTimes
from benchmarks.workload import Workload

ONE = Workload(train_examples=8, eval_questions=2, ranks=(4,), learning_rates=(1e-3,), slots=1)
COUNTS: dict[str, float] = {"steps": 1, "tokens": 90, "questions": 2, "threads": 1}


def trial(began: float, first_step: float | None, end: float) -> TrialTimes:
    return TrialTimes(
        began=began,
        first_step=first_step,
        end=end,
        seconds={"train": 2.0, "eval": 1.0},
        counts=COUNTS,
        metrics={"eval_loss": 1.5},
        rank=4,
        learning_rate=1e-3,
    )


def run(*trials: TrialTimes, slots: int = 1) -> RunTimes:
    return RunTimes(started=0.0, ray_ready=4.0, ended=40.0, trials=list(trials), slots=slots)


def test_a_gap_lasts_from_an_end_to_the_next_first_step_on_its_slot() -> None:
    two = run(trial(5, 6, 10), trial(5, 7, 12), trial(11, 14, 20), trial(13, 16, 22), slots=2)
    assert two.gaps() == [14 - 10, 16 - 12]


def test_a_trial_that_only_judged_has_no_first_step_but_an_end() -> None:
    one = run(trial(5, 6, 10), trial(11, None, 15), trial(16, 17, 20))
    assert one.gaps() == [17 - 15]
    assert len(one.trained) == 2


def test_the_makespan_begins_when_ray_answers_and_its_shares_add_up() -> None:
    one = run(trial(5, 6, 10), trial(11, 12, 24))
    assert (one.makespan, one.start_up, one.wall) == (20, 4, 40)
    shares = one.shares()
    assert shares["train"] == pytest.approx(0.2)
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"counts": {**COUNTS, "steps": 2}}, "wanted"),
        ({"counts": {**COUNTS, "threads": 2}}, "wanted"),
        ({"counts": {**COUNTS, "tokens": 91}}, "tokens"),
        ({"metrics": {"eval_loss": 1.7}}, "eval loss"),
    ],
)
def test_unequal_work_is_an_error(change: dict[str, dict[str, float]], why: str) -> None:
    same = trial(5, 6, 10)
    overhead.check_equal_work({"a": [run(same)], "b": [run(same)]}, ONE)
    other = replace(same, **change)  # type: ignore[arg-type]
    with pytest.raises(overhead.UnequalWorkError, match=why):
        overhead.check_equal_work({"a": [run(same)], "b": [run(other)]}, ONE)


@pytest.mark.slow
def test_the_benchmark_runs_in_its_quick_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert overhead.main(["--quick", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "overhead.md").read_text() in printed
    assert "from a trial's end to the next one's first step" in printed
    runs = json.loads((tmp_path / "overhead.json").read_text())
    assert {name: len(runs[name]) for name in runs} == {"a": 1, "b": 1, "c": 1}
    assert all(len(those[0]["trials"]) >= 3 for those in runs.values())
