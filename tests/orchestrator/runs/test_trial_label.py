"""Labels: no two trials of a sweep share one, whatever the sweep varies."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runs.results import read_labels, read_trials
from orchestrator.runs.trial_label import (
    TrialLabels,
    distinct_names,
    told_apart,
)
from orchestrator.space.grammar import parse_space
from orchestrator.space.sampling import random_configuration
from tests.orchestrator.run_builder import (
    CONFIG,
    add_baseline,
    add_trial,
    new_run,
    outcomes,
    trial_label,
)
from trainables.spec.knobs import KNOBS, canonical
from trainables.storage.run_folder import RunFolder

# Two values of each knob, and what else a trial needs to read it.
TWO: Mapping[str, tuple[Any, Any, Mapping[str, Any]]] = {
    "model": ("a/final", "b/final", {}),
    "quantization": ("none", "nf4", {}),
    "double_quantization": (False, True, {"quantization": "nf4"}),
    "compute_dtype": ("float32", "bfloat16", {}),
    "method": ("lora", "full", {}),
    "rank": (4, 8, {}),
    "alpha": (8, 16, {}),
    "dropout": (0.0, 0.05, {}),
    "target_modules": ("all-linear", {"value": ["q_proj", "v_proj"]}, {}),
    "workers": (1, 2, {"method": "full"}),
    "zero_stage": (2, 3, {"method": "full"}),
    "offload": ("none", "cpu", {"method": "full"}),
    "learning_rate": (1.31e-3, 1.34e-3, {}),
    "batch_size": (4, "auto", {}),
    "gradient_accumulation": (1, 2, {}),
    "effective_batch_size": (16, 32, {"batch_size": "auto"}),
    "optimizer": ("adamw", "sgd", {}),
    "schedule": ("linear", "cosine", {}),
    "warmup": (0.031, 0.0312, {}),
    "weight_decay": (0.0, 0.1, {}),
    "max_gradient_norm": (1.0, 0.5, {}),
    "gradient_checkpointing": (False, True, {}),
    "sequence_length": (512, 1024, {}),
    "prompt": ("mine/prompt.txt", "hers/prompt.txt", {}),
    "target": ("answer", "program", {}),
    "answer": ("generate", "likelihood", {}),
    "split_seed": (5768, 78516, {}),
    "shots": (0, 2, {"method": "prompting"}),
    "shot_selection": ("random", "similar", {"method": "prompting"}),
    "shot_seed": (0, 1, {"method": "prompting"}),
    "shots_too_long": ("drop", "refuse", {"method": "prompting"}),
    "decoding": ("greedy", "sample", {}),
    "temperature": (0.7, 1.0, {"decoding": "sample"}),
    "top_k": (0, 50, {"decoding": "sample"}),
    "top_p": (0.9, 1.0, {"decoding": "beam_sample"}),
    "beams": (2, 4, {"decoding": "beam"}),
    "length_penalty": (0.5, 1.0, {"decoding": "beam"}),
    "votes": (1, 5, {"decoding": "sample"}),
    "decoding_seed": (0, 1, {"decoding": "sample"}),
    "seed": (0, 3, {}),
}


def space(**knobs: Any) -> Any:
    return parse_space({"model": "base_models/small", **knobs})


def labels_of(*trials: Mapping[str, Any], labels: TrialLabels | None = None) -> list[str]:
    labels = labels or TrialLabels()
    return [labels.of(f"trial{at}", canonical(knobs)) for at, knobs in enumerate(trials)]


@pytest.mark.parametrize("knob", KNOBS)
def test_whatever_knob_a_sweep_varies_its_trials_are_told_apart(knob: str) -> None:
    one, other, given = TWO[knob]
    labels = TrialLabels(space(**given, **{knob: [one, other]}))
    values = [value["value"] if isinstance(value, dict) else value for value in (one, other)]
    trials = [{"model": "base_models/small", **given, knob: value} for value in values]
    first, second = labels_of(*trials, labels=labels)
    assert first != second
    assert len(second.split()) <= len(trial_label(canonical(trials[1])).split()) + 1
    assert "trial1" not in second  # its id is the last resort


def test_what_is_varied_is_told_briefly_in_the_table_of_knobs_order() -> None:
    varied = space(
        optimizer=["adamw", "sgd"],
        schedule=["linear", "cosine", "constant"],
        weight_decay=[0.0, 0.1],
        compute_dtype=["float32", "bfloat16"],
        method={"lora": {"target_modules": ["all-linear", {"value": ["q_proj", "v_proj"]}]}},
        gradient_checkpointing=[False, True],
        seed=[0, 3],
    )
    first, second = labels_of(
        {"model": "base_models/small", "compute_dtype": "float32"},
        {
            "model": "base_models/small",
            "compute_dtype": "bfloat16",
            "target_modules": ["v_proj", "q_proj"],
            "optimizer": "sgd",
            "schedule": "cosine",
            "weight_decay": 0.1,
            "gradient_checkpointing": True,
            "seed": 3,
        },
        labels=TrialLabels(varied),
    )
    shown = "small none r8 a16 lr2.0e-04 b8x1"
    assert first == f"{shown} fp32 all-linear adamw linear seed0"
    assert second == f"{shown} bf16 q+v sgd cosine wd0.1 ckpt seed3"


def test_what_is_shown_already_or_is_not_varied_adds_nothing() -> None:
    labels = TrialLabels(space(rank=[4, 8], optimizer=["sgd"], schedule="cosine"))
    knobs = {"model": "base_models/small", "optimizer": "sgd", "schedule": "cosine"}
    assert labels_of(knobs, labels=labels) == [trial_label(canonical(knobs))]


def test_rounded_numbers_that_are_alike_get_more_decimals() -> None:
    labels = TrialLabels(space(learning_rate={"log_uniform": [1e-4, 1e-2]}))
    rates = [1.31e-3, 1.34e-3, 1.3412e-3, 1.34e-3 + 1e-15]
    found = labels_of(*({"model": "m", "learning_rate": rate} for rate in rates), labels=labels)
    assert [label.split()[4] for label in found[:3]] == ["lr1.3e-03", "lr1.34e-03", "lr1.341e-03"]
    assert len(set(found)) == 4
    assert labels.of("trial0", canonical({"model": "m", "learning_rate": 1.31e-3})) == found[0]


def test_a_thousand_trials_of_a_wide_space_have_as_many_labels() -> None:
    wide = space(
        method={"lora": {"rank": [4, 8], "dropout": {"uniform": [0.0, 0.2]}}},
        learning_rate={"log_uniform": [1e-4, 1e-3]},
        optimizer=["adamw", "sgd"],
    )
    chance, labels = random.Random(7), TrialLabels(wide)
    drawn = [random_configuration(wide, chance) or ({}, {}) for _ in range(1000)]
    found = {
        labels.of(f"trial{at:04}", canonical(configuration))
        for at, (configuration, _) in enumerate(drawn)
    }
    assert len(found) == 1000
    assert not [label for label in found if "trial" in label]


def test_without_a_space_trials_are_told_apart_by_how_they_differ() -> None:
    found = labels_of(
        {"model": "m"}, {"model": "m", "schedule": "cosine"}, {"model": "m", "seed": 2}
    )
    shown = trial_label(canonical({"model": "m"}))
    assert found == [shown, f"{shown} cosine", f"{shown} seed2"]


def test_as_much_of_a_path_as_tells_models_apart() -> None:
    assert distinct_names(["meta-llama/Llama-3.2-1B", "/models/mine/"]) == {
        "meta-llama/Llama-3.2-1B": "Llama-3.2-1B",
        "/models/mine/": "mine",
    }
    assert distinct_names(["exp1/final", "exp2/final", "./exp2/final/", "other"]) == {
        "exp1/final": "exp1/final",
        "exp2/final": "exp2/final",
        "./exp2/final/": "exp2/final",
        "other": "other",
    }
    assert distinct_names(["a/x/final", "b/x/final", "final"]) == {
        "a/x/final": "a/x/final",
        "b/x/final": "b/x/final",
        "final": "final",
    }


def test_names_that_are_alike_get_the_words_in_which_their_labels_differ() -> None:
    names = ["none r8", "none r8", "nf4 r8"]
    labels = ["m none r8 adamw", "m none r8 sgd", "m nf4 r8 adamw"]
    assert told_apart(names, labels) == ["none r8 adamw", "none r8 sgd", "nf4 r8"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    varied = {"model": ["exp1/final", "exp2/final"], "optimizer": ["adamw", "sgd"]}
    run = new_run(tmp_path / "alike", {**CONFIG, "space": varied})
    for model, right in (("exp1/final", 40), ("exp2/final", 60)):
        add_baseline(run, outcomes(5), model=model)
        for optimizer in ("adamw", "sgd"):
            add_trial(run, right=outcomes(right), model=model, optimizer=optimizer)
    return run


def test_a_run_tells_its_trials_apart_by_its_space(run: RunFolder) -> None:
    results = read_trials(run)
    assert [item.label for item in results] == [
        "exp1/final none untrained",
        "exp1/final none r8 a16 lr2.0e-04 b8x1 adamw",
        "exp1/final none r8 a16 lr2.0e-04 b8x1 sgd",
        "exp2/final none untrained",
        "exp2/final none r8 a16 lr2.0e-04 b8x1 adamw",
        "exp2/final none r8 a16 lr2.0e-04 b8x1 sgd",
    ]
    labels = read_labels(run)
    assert [labels.told(item.trial_id) for item in results] == [item.label for item in results]
    assert labels.told("another") == ""


def test_a_run_whose_space_can_not_be_read_still_tells_its_trials_apart(run: RunFolder) -> None:
    run.write_text(run.sweep_file, "space: [")
    labels = [item.label for item in read_trials(run)]
    assert len(set(labels)) == len(labels)
    assert {label.split()[0] for label in labels} == {"exp1/final", "exp2/final"}


def test_prompts_that_are_written_out_are_numbered_as_the_space_has_them() -> None:
    texts = ["{sentence}\nSentiment:", "Is {input} good/bad news?"]
    labels = TrialLabels(space(prompt=["default", *texts]))
    trials = [{"model": "base_models/small", "prompt": prompt} for prompt in ("default", *texts)]
    told = labels_of(*trials, labels=labels)
    assert [label.split()[-1] for label in told] == ["default", "prompt1", "prompt2"]
    (alone,) = labels_of({"model": "base_models/small", "prompt": texts[0]})
    assert "\n" not in alone
