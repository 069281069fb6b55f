"""Specification of the search: what the study is told, and that it can be told it again."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import SweepConfig, from_mapping
from orchestrator.grammar import parse_space
from orchestrator.search import SEARCHERS, Proposal, Search, walk
from orchestrator.space import grid
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
    return search._study.trials[-1]


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
    walked = [repr(configuration) for configuration, _ in itertools.islice(walk(space), 3000)]
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


def test_unseen_walks_through_all_of_a_space_of_choices_and_then_says_so() -> None:
    search, seen = Search(config()), list[Any]()
    while proposal := search.propose_unseen(lambda configuration: configuration in seen):
        assert proposal.configuration not in seen
        seen.append(proposal.configuration)
    assert len(seen) == 4


def test_unseen_draws_from_a_space_with_ranges() -> None:
    search = Search(config(**RANGES))
    proposal = search.propose_unseen(lambda configuration: configuration["quantization"] == "none")
    assert proposal is not None
    assert proposal.configuration["quantization"] == "nf4"
    assert search.propose_unseen(lambda configuration: True) is None


def test_unseen_never_proposes_what_is_excluded() -> None:
    value = tiny_sweep.mapping(exclude=[{"quantization": "nf4"}])
    search, seen = Search(from_mapping(value)), list[Any]()
    while proposal := search.propose_unseen(lambda configuration: configuration in seen):
        seen.append(proposal.configuration)
    assert [each["quantization"] for each in seen] == ["none", "none"]


def test_a_grid_proposes_each_configuration_once_and_in_order() -> None:
    search = Search(config("grid"))
    proposed_ = [dict(p.configuration) for p in iter(search.propose, None) if p is not None]
    assert proposed_ == [dict(each) for each in grid(config("grid").space)]


def proposed(search: Search) -> Proposal:
    proposal = search.propose()
    assert proposal is not None
    return proposal
