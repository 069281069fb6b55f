"""The Pareto front contains exactly the non-dominated finished trials, and it can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.pareto import COST, COSTS, cost_of, front, non_dominated
from orchestrator.reporting.plots.pareto import caption, plot
from orchestrator.runs.results import read_trials
from orchestrator.runs.trial_result import TrialResult
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, outcomes
from trainables.storage.trial_folder import TrialFolder
from trainables.tasks.exact_match import EM_ACC
from trainables.tasks.finqa.task import FinQA

PNG = b"\x89PNG\r\n"


def trial(name: str, cost: float, value: float, *, state: str = "finished") -> TrialResult:
    return TrialResult(
        folder=TrialFolder(Path(name)), role="trial", state=state, reason="", knobs={},
        metrics={COST: cost, EM_ACC.name: value}, report_metrics={}, report_count=0, step=0,
        units=0, fraction=1.0, seconds={}, history=(), facts={}, provenance={}, attempts=1,
        task_metrics=FinQA.metrics,
    )  # fmt: skip


def names(results: Sequence[TrialResult]) -> list[str]:
    return [item.trial_id for item in results]


def test_a_known_front() -> None:
    trials = [trial("cheap", 1, 0.2), trial("middle", 2, 0.5), trial("worse", 3, 0.4),
              trial("dear", 4, 0.6), trial("as good but dearer", 5, 0.6)]  # fmt: skip
    assert names(front(trials[::-1])) == ["cheap", "middle", "dear"]


def test_equal_trials_stand_together_and_equal_cost_keeps_the_best() -> None:
    trials = [trial("a", 1, 0.5), trial("b", 1, 0.5), trial("c", 1, 0.4)]
    assert names(front(trials)) == ["a", "b"]


def test_only_finished_trials_take_part() -> None:
    assert names(front([trial("stopped", 1, 0.9, state="stopped"), trial("a", 2, 0.1)])) == ["a"]
    assert front([]) == []


def test_a_trial_that_trains_nothing_stands_at_its_evaluation_memory() -> None:
    asked = trial("asked", 1, 0.4)
    metrics = {"eval_peak_memory_bytes": 2.0, "train_flops": 0.0, EM_ACC.name: 0.4}
    trials = [replace(asked, metrics=metrics), trial("less", 1, 0.2), trial("trained", 3, 0.6)]
    assert names(front(trials)) == ["less", "asked", "trained"]
    assert cost_of(trials[0]) == 2.0 and "trains nothing stands at" in caption(trials)
    assert "trains nothing" not in caption(trials[1:])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25))
def test_the_front_is_what_the_definition_says(points: list[tuple[int, int]]) -> None:
    trials = [trial(str(place), cost, value) for place, (cost, value) in enumerate(points)]

    def dominated(item: TrialResult) -> bool:
        cost, value = item.metrics[COST], item.metrics[EM_ACC.name]
        return any(
            other.metrics[COST] <= cost
            and other.metrics[EM_ACC.name] >= value
            and (other.metrics[COST], other.metrics[EM_ACC.name]) != (cost, value)
            for other in trials
        )

    assert set(names(front(trials))) == {item.trial_id for item in trials if not dominated(item)}


def test_the_plot_is_drawn_once_a_trial_has_finished(tmp_path: Path) -> None:
    run = new_run(tmp_path / "sweep")
    add_baseline(run, outcomes(5))
    assert plot(run) is None and not run.pareto_file.exists()
    add_trial(run, right=outcomes(60), quantization="nf4")
    add_trial(run, state="stopped", reason="ASHA", rank=64)
    assert plot(run) == run.pareto_file
    assert run.pareto_file.read_bytes().startswith(PNG)
    text = caption(read_trials(run))
    assert "1 finished of 2 trials, 1 on the front" in text and "1 untrained baseline" in text


def test_trials_without_baselines_and_of_unknown_quantization_are_drawn(tmp_path: Path) -> None:
    run = new_run(tmp_path / "sweep")
    add_trial(run, right=outcomes(0), quantization="nf4", double_quantization=True,
              metrics={COST: 7 * 2**30})  # fmt: skip
    assert plot(run) is not None


def test_one_that_is_on_no_front_of_two_may_still_be_beaten_by_none() -> None:
    def costing(name: str, value: float, *costs: float) -> TrialResult:
        made = trial(name, costs[0], value)
        return replace(made, metrics={EM_ACC.name: value, **dict(zip(COSTS, costs, strict=True))})

    results = [
        costing("cheap", 0.70, 20, 9, 1),
        costing("small", 0.70, 5, 9, 10),
        costing("between", 0.65, 6, 9, 2),
        costing("beaten", 0.65, 6, 9, 3),
        costing("beaten too", 0.60, 20, 9, 10),
        trial("lacks FLOPs", 99, 0.1),
    ]
    assert names(non_dominated(results)) == ["cheap", "small", "between", "lacks FLOPs"]
