"""A trial's identity: everything that determines its result, and nothing else."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from typing import Any

import pytest

from trainables.spec.events import Event
from trainables.spec.knobs import KNOBS, canonical
from trainables.spec.trial_spec import Budget, Execution, TrialSpec

OTHER: dict[str, Any] = {
    "quantization": "fp4",
    "double_quantization": True,
    "compute_dtype": "float16",
    "method": "untrained",
    "rank": 9,
    "alpha": 9.0,
    "dropout": 0.9,
    "target_modules": ["q_proj"],
    "workers": 9,
    "zero_stage": 3,
    "offload": "cpu",
    "learning_rate": 0.9,
    "batch_size": 9,
    "effective_batch_size": 9,
    "gradient_accumulation": 9,
    "optimizer": "sgd",
    "schedule": "cosine",
    "warmup": 0.9,
    "weight_decay": 0.9,
    "max_gradient_norm": 9.0,
    "gradient_checkpointing": True,
    "sequence_length": 99,
    "target": "program",
    "answer": "likelihood",
    "split_seed": 78516,
    "shots": 8,
    "shot_selection": "similar",
    "shot_seed": 3,
    "shots_too_long": "refuse",
    "decoding": "beam_sample",
    "temperature": 0.7,
    "top_k": 50,
    "top_p": 0.9,
    "beams": 8,
    "length_penalty": 0.5,
    "votes": 5,
    "decoding_seed": 3,
    "seed": 9,
}
BY_CONTENT = {"model", "prompt"}  # in the id by their digests


def spec(**changes: Any) -> TrialSpec:
    whole = TrialSpec(
        role="trial",
        knobs=canonical({"model": "here", "quantization": "nf4"}),
        model_digest="0123",
        task="finqa",
        task_identity={"version": "1", "prompt": "abcd", "data": {"train": "4567"}},
        task_options={"train": "/here/train.json"},
        budget=Budget(640, 100),
        model_source="/here/model",
    )
    return replace(whole, **changes)


def with_knobs(**knobs: Any) -> TrialSpec:
    return spec(knobs={**spec().knobs, **knobs})


def test_every_knob_has_a_case_here() -> None:
    assert set(OTHER) | BY_CONTENT == set(KNOBS)


def test_the_id_is_computed_once_and_belongs_to_one_spec() -> None:
    first = spec()
    assert first.trial_id is first.trial_id
    assert replace(first, model_digest="other").trial_id != first.trial_id
    assert replace(first, model_source="/there/model").trial_id == first.trial_id
    assert first == spec() and "trial_id" in first.to_json()
    assert pickle.loads(pickle.dumps(first)).trial_id == first.trial_id


@pytest.mark.parametrize("knob", OTHER)
def test_every_knob_is_part_of_the_id(knob: str) -> None:
    assert OTHER[knob] != spec().knobs.get(knob)
    assert with_knobs(**{knob: OTHER[knob]}).trial_id != spec().trial_id


@pytest.mark.parametrize(
    "change",
    [
        {"role": "baseline"},
        {"model_digest": "other"},
        {"task": "other"},
        {"task_identity": {"version": "2", "prompt": "abcd", "data": {"train": "4567"}}},
        {"task_identity": {"version": "1", "prompt": "other", "data": {"train": "4567"}}},
        {"task_identity": {"version": "1", "prompt": "abcd", "data": {"train": "other"}}},
        {"budget": Budget(641, 100)},
        {"budget": Budget(640, 101)},
        {"budget": Budget(640, 100, (1.0,))},
        {"execution": Execution(max_new_tokens=33)},
    ],
    ids=str,
)
def test_what_decides_the_result_is_part_of_the_id(change: dict[str, Any]) -> None:
    assert spec(**change).trial_id != spec().trial_id


@pytest.mark.parametrize(
    "change",
    [
        {"model_source": "/elsewhere/model"},
        {"revision": "main"},
        {"task_options": {"train": "/elsewhere/train.json"}},
        {"execution": Execution(eval_batch_size=1)},
        {"execution": Execution(checkpoint_seconds=1.0, progress_seconds=9.0)},
    ],
    ids=str,
)
def test_where_things_lie_and_how_often_it_saves_is_not(change: dict[str, Any]) -> None:
    assert spec(**change).trial_id == spec().trial_id


@pytest.mark.parametrize("knob", sorted(BY_CONTENT))
def test_a_name_is_not_part_of_the_id_where_its_content_is(knob: str) -> None:
    assert with_knobs(**{knob: "/elsewhere"}).trial_id == spec().trial_id


def test_a_baseline_does_not_depend_on_the_budget() -> None:
    one = spec(role="baseline", budget=Budget(0, 100, (1.0,)))
    assert replace(one, budget=Budget(0, 50, (1.0,))).trial_id == one.trial_id


def test_the_id_does_not_depend_on_the_order_of_keys_or_on_tuples() -> None:
    knobs = dict(reversed([*spec().knobs.items()]))
    assert spec(knobs=knobs).trial_id == spec().trial_id
    listed = with_knobs(target_modules=["q_proj", "v_proj"])
    assert with_knobs(target_modules=("q_proj", "v_proj")).trial_id == listed.trial_id


def test_an_id_is_twelve_hexadecimal_digits_and_stays() -> None:
    assert len(spec().trial_id) == 12
    int(spec().trial_id, 16)
    assert spec().trial_id == spec().trial_id


def test_json_both_ways() -> None:
    written = json.loads(json.dumps(spec().to_json()))
    read = TrialSpec.from_json(written)
    assert read == spec()
    assert written["trial_id"] == read.trial_id == spec().trial_id


def test_json_that_is_no_spec_is_refused() -> None:
    with pytest.raises(KeyError):
        TrialSpec.from_json({"role": "trial"})
    with pytest.raises(TypeError):
        TrialSpec.from_json({**spec().to_json(), "budget": {"rungs": [1.0], "epochs": 3}})


def test_trials_share_a_base_if_its_weights_are_stored_and_computed_alike() -> None:
    assert with_knobs(rank=16, learning_rate=0.5).base_key == spec().base_key
    for knobs in ({"quantization": "none"}, {"double_quantization": True}, {"compute_dtype": "x"}):
        assert with_knobs(**knobs).base_key != spec().base_key
    assert spec(model_digest="other").base_key != spec().base_key


def test_an_event_is_json_both_ways() -> None:
    event = Event("rung", 4, 32, {"em_acc": 0.5}, 0.25, 1.5)
    assert Event.from_json(json.loads(json.dumps(event.to_json()))) == event


def test_a_metric_that_was_not_finite_is_not_a_number_when_it_is_read() -> None:
    written = {**Event("rung", 4, 32, {}).to_json(), "metrics": {"eval_loss": None, "em_acc": 0.0}}
    read = Event.from_json(written)
    assert math.isnan(read.metrics["eval_loss"])
    assert read.metrics["em_acc"] == 0.0
