"""--grid is YAML as a search space has it, and every combination is tried."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.decode.grid import USUAL, decoded, name_of, strategies
from tests.orchestrator.run_builder import new_spec
from trainables.errors import InputError
from trainables.spec.knobs import canonical
from trainables.spec.trial_spec import TrialSpec


def spec(**knobs: Any) -> TrialSpec:
    return replace(new_spec(), knobs=canonical({"model": "m", **knobs}))


def test_the_usual_grid_has_each_strategy_once() -> None:
    assert [name_of(each) for each in strategies(USUAL)] == [
        "greedy",
        "sample temperature 0.7",
        "sample temperature 0.7, votes 5",
        "sample temperature 1",
        "sample temperature 1, votes 5",
        "beam beams 2",
        "beam beams 4",
    ]


def test_a_file_says_the_same_as_its_text(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("- greedy\n- beam: {beams: [2, 3], length_penalty: 0.5}\n")
    assert strategies(str(file)) == strategies(
        "[greedy, {beam: {beams: [2, 3], length_penalty: 0.5}}]"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[greedy, samples]", "--grid: got 'samples'. Did you mean 'sample'"),
        ("{sample: {temperatur: 1}}", "--grid.sample.temperatur: unknown key. Did you mean"),
        ("{sample: {beams: 2}}", "--grid.sample.beams: beams is not read with decoding sample."),
        ("{beam: {beams: [1, 4]}}", "--grid.beam.beams: got 1; needs a whole number >= 2."),
        ("[greedy", "--grid: line 1"),
        ("{sample: {temperature: {uniform: [0.5, 1]}}}", "--grid.sample.temperature: "),
        ("{sample: {seed: [1, 2]}}", "--grid: seed: no knob of a strategy; these are decoding"),
        ("{sample: {decoding_seed: {integers: [0, 99999999]}}}", "more than 1000 strategies"),
        ("nothing.yaml", "nothing.yaml: no such file"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        strategies(text)
    assert message in "\n".join(caught.value.messages)


def test_a_strategy_replaces_that_of_the_trial() -> None:
    own = spec(decoding="sample", temperature=0.3, votes=7)
    (beam,) = strategies("{beam: {beams: 3}}")
    (greedy,) = strategies("greedy")
    assert decoded(own, beam).knobs == spec(decoding="beam", beams=3).knobs
    assert decoded(own, greedy).knobs == spec().knobs


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [({"answer": "likelihood"}, "it answers by likelihood"), ({"method": "untrained"}, "baseline")],
)
def test_what_decodes_nothing_is_refused(knobs: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        decoded(spec(**knobs), {"decoding": "beam", "beams": 3})
