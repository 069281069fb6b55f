"""The search: the results that the study gets, and that they can be reported again."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SweepConfig
from orchestrator.search.samplers import SEARCHERS
from orchestrator.search.searcher import Proposal, Search
from orchestrator.space.enumeration import grid, grid_configurations
from orchestrator.space.grammar import parse_space
from tests.orchestrator import spaces, tiny_sweep

RANGES: dict[str, Any] = {
    "rank": {"integers": [2, 8, 2]},
    "learning_rate": {"log_uniform": [1e-4, 1e-2]},
    "dropout": {"uniform": [0.0, 0.3]},
}


def config(algorithm: str = "tpe", *, seed: int = 3, **space: Any) -> SweepConfig:
    value = tiny_sweep.mapping(search={"algorithm": algorithm, "trials": 12, "seed": seed})
    value["space"] |= space
    return from_mapping(value)


def lived(search: Search, *, trials: int) -> list[Any]:
    """What a search proposes to whoever tells it how large the rank is."""
    seen = []
    for _ in range(trials):
        proposal = search.propose()
        assert proposal is not None
        seen.append(dict(proposal.configuration))
        search.tell(proposal, "complete", float(proposal.configuration["rank"]))
    return seen


def told(search: Search) -> Any:
    """The last trial that the study knows."""
    return search.study.trials[-1]


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_one_seed_proposes_the_same_again(algorithm: str) -> None:
    first = lived(Search(config(algorithm, **RANGES)), trials=8)
    assert lived(Search(config(algorithm, **RANGES)), trials=8) == first
    assert lived(Search(config(algorithm, seed=4, **RANGES)), trials=8) != first


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_a_resumed_search_does_not_begin_with_what_it_began_with(algorithm: str) -> None:
    first = lived(Search(config(algorithm, **RANGES)), trials=4)
    resumed = lived(Search(config(algorithm, **RANGES), known_trials=4), trials=4)
    assert not [configuration for configuration in resumed if configuration in first]


@pytest.mark.parametrize("algorithm", SEARCHERS)
def test_every_searcher_proposes_what_its_space_has(algorithm: str) -> None:
    search = Search(config(algorithm))
    everything = [dict(each) for each in grid(config(algorithm).space)]
    proposal = search.propose()
    assert proposal is not None
    assert proposal.configuration in everything


def test_a_finished_trial_is_complete_with_its_value_and_its_intermediate_values() -> None:
    search = Search(config())
    proposal = proposed(search)
    search.report(proposal, units=8, value=0.25)
    search.report(proposal, units=32, value=0.75)
    search.tell(proposal, "complete", 0.75)
    trial = told(search)
    assert trial.state.name == "COMPLETE"
    assert trial.value == 0.75
    assert trial.intermediate_values == {8: 0.25, 32: 0.75}


def test_a_stopped_trial_is_pruned_with_all_its_intermediate_values() -> None:
    search = Search(config())
    proposal = proposed(search)
    search.report(proposal, units=8, value=0.25)
    search.tell(proposal, "pruned")
    assert told(search).state.name == "PRUNED"
    assert told(search).intermediate_values == {8: 0.25}


def test_an_infeasible_trial_is_pruned_without_values() -> None:
    search = Search(config())
    search.tell(proposed(search), "worst")
    assert told(search).state.name == "PRUNED"
    assert told(search).intermediate_values == {}


def test_a_failed_trial_is_one_that_samplers_ignore() -> None:
    search = Search(config())
    search.tell(proposed(search), "failed")
    assert told(search).state.name == "FAIL"


def test_the_sampler_takes_a_trial_that_can_not_run_for_the_worst() -> None:
    """Told of rejections, it goes where trials can run."""
    search = Search(config(rank={"integers": [1, 100]}))
    proposals = []
    for _ in range(80):
        proposal = proposed(search)
        rank = proposal.configuration["rank"]
        proposals.append(rank)
        if rank > 50:
            search.tell(proposal, "worst")
        else:
            search.tell(proposal, "complete", 0.5)
    assert sum(rank <= 50 for rank in proposals[40:]) > 28  # half of 40 by chance


@given(value=spaces.finite)
@settings(max_examples=60, deadline=None)
def test_a_walk_meets_every_configuration_of_the_grid(value: dict[str, Any]) -> None:
    space = parse_space(value)
    walked = [
        repr(configuration)
        for configuration, _ in itertools.islice(grid_configurations(space), 3000)
    ]
    wanted = [repr(configuration) for configuration in itertools.islice(grid(space), 3000)]
    if len(wanted) < 3000:
        assert sorted(walked) == sorted(wanted)


@given(value=spaces.varied, seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_a_suggestion_written_to_json_leads_to_its_configuration_again(
    value: dict[str, Any], seed: int
) -> None:
    sweep = tiny_sweep.mapping(search={"algorithm": "random", "trials": 4, "seed": seed})
    settled = from_mapping({**sweep, "space": value, "scheduler": "none"})
    proposal = proposed(Search(settled))
    suggestion = json.loads(json.dumps(proposal.suggestion))
    replayed = Search(settled).replay(suggestion)
    assert replayed.configuration == proposal.configuration
    assert replayed.suggestion == proposal.suggestion


def test_unseen_goes_through_all_of_a_space_of_choices() -> None:
    search = Search(config())
    everything = [configuration for configuration, _ in search.unseen(lambda _: False)]
    assert len(everything) == 4
    left = search.unseen(lambda configuration: configuration in everything[1:])
    assert [configuration for configuration, _ in left] == everything[:1]


def test_unseen_draws_from_a_space_with_ranges() -> None:
    search = Search(config(**RANGES))
    configuration, suggestion = next(search.unseen(lambda each: each["quantization"] == "none"))
    assert configuration["quantization"] == "nf4"
    assert search.impose(suggestion).configuration == configuration
    assert list(search.unseen(lambda _: True)) == []


def test_unseen_never_has_what_is_excluded() -> None:
    search = Search(from_mapping(tiny_sweep.mapping(exclude=[{"quantization": "nf4"}])))
    left = [configuration for configuration, _ in search.unseen(lambda _: False)]
    assert [each["quantization"] for each in left] == ["none", "none"]


def test_a_grid_proposes_each_configuration_once_and_in_order() -> None:
    search = Search(config("grid"))
    proposed_ = [dict(p.configuration) for p in iter(search.propose, None) if p is not None]
    assert proposed_ == [dict(each) for each in grid(config("grid").space)]


def several(algorithm: str = "tpe", **sections: Any) -> SweepConfig:
    names = ["em_acc", "train_peak_memory_bytes"]
    search = {"algorithm": algorithm, "trials": 12, "seed": 3}
    value = tiny_sweep.mapping(objective=names, search=search, scheduler="none", **sections)
    value["space"] |= RANGES
    return from_mapping(value)


def given_first(algorithm: str, *given: dict[str, Any], **sections: Any) -> SweepConfig:
    search = {"algorithm": algorithm, "trials": 12, "seed": 3, "start_with": [*given]}
    return from_mapping(tiny_sweep.mapping(search=search, **sections))


@pytest.mark.parametrize("algorithm", ["tpe", "random", "nsga2"])
def test_with_several_objectives_each_has_its_value_and_its_direction(algorithm: str) -> None:
    search = Search(several(algorithm))
    assert [direction.name for direction in search.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for place in range(20):
        proposal = proposed(search)
        search.report(proposal, units=8, value=0.25)  # there is no early stopping
        if place % 4 == 3:
            search.tell(proposal, "worst")
        elif place % 4 == 2:
            search.tell(proposal, "failed")
        else:
            rank = float(proposal.configuration["rank"])
            search.tell(proposal, "complete", [0.1 * rank, 1e9 * rank])
    states = [trial.state.name for trial in search.study.trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED"] * 5
    assert search.study.best_trials


def test_a_loss_is_minimised_as_it_is() -> None:
    settled = from_mapping(tiny_sweep.mapping(objective="eval_loss"))
    assert Search(settled).study.direction.name == "MINIMIZE"


@pytest.mark.parametrize("algorithm", SEARCHERS)
def test_what_is_given_is_proposed_first_and_in_order(algorithm: str) -> None:
    given: list[dict[str, Any]] = [{"quantization": "nf4", "rank": 4}, {"rank": 2}]
    search = Search(given_first(algorithm, *given))
    first, second, third = (proposed(search) for _ in range(3))
    assert dict(first.configuration) | given[0] == first.configuration
    assert second.configuration["rank"] == 2
    assert (first.is_given, second.is_given, third.is_given) == (True, True, False)


@pytest.mark.parametrize("algorithm", SEARCHERS)
def test_what_is_given_in_part_is_completed_within_the_exclusions(algorithm: str) -> None:
    rules = [{"quantization": "none", "rank": 2}]
    first = proposed(Search(given_first(algorithm, {"rank": 2}, exclude=rules)))
    assert (first.configuration["rank"], first.configuration["quantization"]) == (2, "nf4")


def test_the_sampler_fills_in_what_is_left_open() -> None:
    found = set()
    for seed in range(12):
        settled = from_mapping(
            tiny_sweep.mapping(
                search={
                    "algorithm": "random",
                    "trials": 4,
                    "seed": seed,
                    "start_with": [{"rank": 2}],
                }
            )
        )
        found.add(proposed(Search(settled)).configuration["quantization"])
    assert found == {"none", "nf4"}


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_what_was_given_is_not_proposed_again_after_a_resume(algorithm: str) -> None:
    settled = given_first(algorithm, {"rank": 2}, {"quantization": "nf4", "rank": 4}, {"rank": 4})
    search = Search(settled)
    known = [proposed(search).suggestion for _ in range(2)]
    resumed = Search(settled, known_trials=2)
    for suggestion in known:
        resumed.replay(suggestion)
    third, fourth = proposed(resumed), proposed(resumed)
    assert third.is_given and third.configuration["rank"] == 4
    assert not fourth.is_given


def test_one_factor_proposes_the_reference_and_then_one_change_at_a_time() -> None:
    reference = {"quantization": "nf4", "rank": 4}
    search = {"algorithm": "one_factor", "trials": 12, "seed": 3, "reference": reference}
    found = Search(from_mapping(tiny_sweep.mapping(search=search)))
    pairs = [
        (each.configuration["quantization"], each.configuration["rank"])
        for each in iter(found.propose, None)
        if each is not None
    ]
    assert pairs == [("nf4", 4), ("none", 4), ("nf4", 2)]


def proposed(search: Search) -> Proposal:
    proposal = search.propose()
    assert proposal is not None
    return proposal
