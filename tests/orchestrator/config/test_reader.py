"""A sweep's file is read strictly, and all its errors are reported at once with their location."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from orchestrator.config.reader import from_mapping, load_config
from orchestrator.config.sections import (
    ALGORITHMS,
    ExecutionConfig,
    LimitsConfig,
    ResourcesConfig,
    SchedulerConfig,
    SearchConfig,
    SweepConfig,
)
from orchestrator.config.writer import to_mapping
from orchestrator.config.yaml_loader import yaml_text
from tests.orchestrator import spaces
from trainables.errors import InputError

MINIMAL: dict[str, Any] = {
    "task": "finqa",
    "space": {"model": ["a", "b"], "quantization": ["none", "nf4"], "rank": [4, 8]},
    "budget": {"train_examples": 640, "eval_examples": 100, "seed": 7},
    "search": {"trials": 4},
}
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def _changed(**sections: Any) -> dict[str, Any]:
    return {**copy.deepcopy(MINIMAL), **sections}


def _faults(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as raised:
        load_config(path, overrides)
    return list(raised.value.messages)


def test_what_is_not_said_has_a_default() -> None:
    config = from_mapping(MINIMAL)
    assert config.objective == "em_acc"
    assert config.data == {}
    assert config.exclude == ()
    assert config.search == SearchConfig("tpe", trials=4, seed=7)  # the budget's seed
    assert config.scheduler == SchedulerConfig("asha", 0.0625, 4, ("model", "quantization"))
    assert config.resources == ResourcesConfig(None, None, None)
    assert config.execution == ExecutionConfig(5.0, 32, None)


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        (None, "asha"),
        ("asha", "asha"),
        ({"asha": {}}, "asha"),
        ("none", "none"),
        ("median", "median"),
        ({"median": {"min_trials": 5}}, "median"),
        ("hyperband", "hyperband"),
        ({"hyperband": {"brackets": 1}}, "hyperband"),
    ],
)
def test_a_scheduler_may_be_named_alone(written: Any, kind: str) -> None:
    assert from_mapping(_changed(scheduler=written)).scheduler.kind == kind


def test_an_objective_may_be_one_or_several_of_which_the_first_ranks() -> None:
    assert from_mapping(_changed(objective="eval_loss")).objectives == ("eval_loss",)
    several = from_mapping(_changed(objective=["em_acc", "train_peak_memory_bytes"]))
    assert several.objectives == ("em_acc", "train_peak_memory_bytes")
    assert several.objective == "em_acc"


def test_several_objectives_have_no_scheduler() -> None:
    several = ["em_acc", "train_peak_memory_bytes"]
    assert from_mapping(_changed(objective=several)).scheduler.kind == "none"
    assert from_mapping(_changed(objective=several, scheduler="none")).scheduler.kind == "none"
    assert from_mapping(_changed(objective=["em_acc"])).scheduler.kind == "asha"


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": ["eval_loss", "eval_peak_memory_bytes"]},
        {"objective": ["eval_loss"]},
        {"search": {"trials": 4, "start_with": [{"rank": 8}, {"model": "b", "rank": 4}]}},
        {"search": {"algorithm": "one_factor", "trials": 4, "reference": {"rank": 8}}},
    ],
    ids=repr,
)
def test_what_is_searched_for_and_from_is_kept(sections: dict[str, Any]) -> None:
    config = from_mapping(_changed(**sections))
    text = yaml.safe_dump(to_mapping(config), sort_keys=False)
    assert from_mapping(yaml.safe_load(text)) == config


@pytest.mark.parametrize(
    ("scheduler", "fault"),
    [
        (
            "meddian",
            "scheduler: got 'meddian'; needs none, a name or one of {asha: {...}}, {median",
        ),
        ({"asha": {}, "median": {}}, "scheduler: got {"),
        ({"median": {"brackets": 2}}, "scheduler.median.brackets: unknown key."),
        ({"asha": {"min_trials": 2}}, "scheduler.asha.min_trials: unknown key."),
        ({"median": {"min_trials": 0}}, "scheduler.median.min_trials: got 0;"),
        ({"hyperband": {"brackets": 3}}, "scheduler.hyperband.brackets: got 3; the last one's"),
        ({"hyperband": {"within": ["rnak"]}}, "scheduler.hyperband.within: 'rnak' is not a knob"),
    ],
)
def test_a_scheduler_is_read_strictly(scheduler: Any, fault: str) -> None:
    with pytest.raises(InputError) as raised:
        from_mapping(_changed(scheduler=scheduler))
    assert raised.value.messages[0].startswith(fault)


def test_limits_are_off_but_for_silence() -> None:
    assert from_mapping(MINIMAL).limits == LimitsConfig(None, None, 30)
    limits = {"sweep_hours": 12, "trial_hours": 0.5, "silent_minutes": 5}
    given = from_mapping(_changed(limits=limits))
    assert given.limits == LimitsConfig(12, 0.5, 5)
    assert from_mapping(to_mapping(given)) == given


@pytest.mark.parametrize("name", ["sweep_hours", "trial_hours", "silent_minutes"])
@pytest.mark.parametrize("value", [0, -1, "long"])
def test_a_limit_is_a_time(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"limits.{name}: got"):
        from_mapping(_changed(limits={name: value}))


def test_the_options_of_a_task_are_kept_as_they_are_written() -> None:
    data = {"generated": {"kinds": ["fell"], "train": 3}, "train": "some/where.json"}
    assert from_mapping(_changed(data=data)).data == data


def test_all_faults_are_said_at_once_with_file_and_place(write: Write) -> None:
    path = write(
        """
tsk: finqa
space:
  model: [a]
  quantization: [nf5]
  method: [{lora: {rnak: [4]}}]
budget: {train_examples: 0, eval_example: 3}
search: {algorithm: tpes, trials: -1}
scheduler: {asha: {grace: 2, reduction: 1}}
"""
    )
    assert _faults(path) == [
        f"{path}: tsk: unknown key. Did you mean 'task'?",
        f"{path}: task: missing; it has no default.",
        f"{path}: space.quantization: got 'nf5'. Did you mean 'nf4'?",
        f"{path}: space.method.lora.rnak: unknown key. Did you mean 'rank'?",
        f"{path}: budget.eval_example: unknown key. Did you mean 'eval_examples'?",
        f"{path}: budget.train_examples: got 0; needs a whole number >= 1.",
        f"{path}: budget.eval_examples: missing; it has no default.",
        f"{path}: search.algorithm: got 'tpes'. Did you mean 'tpe'?",
        f"{path}: search.trials: got -1; needs a whole number >= 1.",
        f"{path}: scheduler.asha.grace: got 2; needs a number > 0 and < 1.",
        f"{path}: scheduler.asha.reduction: got 1; needs a number > 1.",
    ]


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"task": "finka"}, "task: got 'finka'. Did you mean 'finqa'?"),
    ({"task": ["finqa"]}, "task: got ['finqa']."),
    ({"objective": "em_ac"}, "objective: got 'em_ac'. Did you mean 'em_acc'?"),
    ({"data": ["a"]}, "data: got ['a']; needs a mapping."),
    (
        {"space": {"model": "m", "target": ["answer", "porgram"]}},
        "space.target: got 'porgram'. Did you mean 'program'?",
    ),
    (
        {"space": {"model": [{"m": {"target": "label"}}, "n"]}},
        "space.model.m.target: got 'label'. Allowed: answer, program.",
    ),
    (
        {"task": "tatqa", "space": {"model": "m", "target": "program"}},
        "space.target: got 'program'. Allowed: answer.",
    ),
    ({"space": None}, "space: missing"),
    ({"space": {"rank": 4}}, "space.model: missing"),
    ({"budget": [640]}, "budget: got [640]; needs a mapping with train_examples"),
    ({"budget": {"train_examples": 6.5, "eval_examples": 1}}, "budget.train_examples: got 6.5"),
    ({"budget": {"train_examples": True, "eval_examples": 1}}, "budget.train_examples: got True"),
    ({"search": {"trials": 0}}, "search.trials: got 0; needs a whole number >= 1."),
    ({"search": None}, "search.trials: missing"),
    ({"scheduler": "ahsa"}, "scheduler: got 'ahsa'; needs none, a name or one of {asha: {...}}, "),
    ({"scheduler": {"asha": {"grase": 0.1}}}, "scheduler.asha.grase: unknown key. Did you mean"),
    (
        {"scheduler": {"asha": {"within": ["modle"]}}},
        "scheduler.asha.within: 'modle' is not a knob",
    ),
    ({"scheduler": {"asha": {"within": ["alpha"]}}}, "'alpha' is not a knob of this space."),
    ({"scheduler": {"asha": {"within": "model"}}}, "got 'model'; needs a list of names."),
    ({"resources": {"cpus_per_trial": 0}}, "resources.cpus_per_trial: got 0; needs a number > 0."),
    ({"resources": {"gpus_per_trial": -1}}, "resources.gpus_per_trial: got -1"),
    ({"resources": {"concurrent_trials": 1.5}}, "resources.concurrent_trials: got 1.5"),
    ({"execution": {"checkpoint_minutes": "5"}}, "execution.checkpoint_minutes: got '5'"),
    ({"exclude": [{"model": ["a", "b"]}]}, "exclude: nothing is left"),
    ({"objective": []}, "objective: the list is empty; needs em_acc, eval_loss"),
    ({"objective": ["em_acc", "em_ac"]}, "objective: got 'em_ac'. Did you mean 'em_acc'?"),
    ({"objective": ["em_acc", "em_acc"]}, "objective: 'em_acc' is there twice."),
    (
        {"objective": ["em_acc", "train_peak_memory_bytes"], "scheduler": "asha"},
        "scheduler: got 'asha' with several objectives",
    ),
    ({"search": {"trials": 4, "start_with": {"rank": 4}}}, "search.start_with: got {'rank': 4};"),
    ({"search": {"trials": 4, "start_with": [4]}}, "search.start_with[0]: got 4; needs knobs"),
    (
        {"search": {"trials": 4, "start_with": [{"rank": 4}, {"rank": 5}]}},
        "search.start_with[1].rank: got 5; the space has 4, 8.",
    ),
    (
        {"search": {"trials": 4, "reference": {"rank": 4}}},
        "search.reference: tpe has none. Use search.algorithm: one_factor",
    ),
    (
        {"search": {"algorithm": "one_factor", "trials": 4, "reference": {"rnak": 4}}},
        "search.reference.rnak: unknown key. Did you mean 'rank'?",
    ),
    (
        {
            "search": {"algorithm": "one_factor", "trials": 4, "reference": {"rank": 4}},
            "exclude": [{"rank": 4}],
        },
        "search.reference: exclude[0] forbids it",
    ),
    (
        {
            "search": {"algorithm": "grid", "trials": 4},
            "space": {"model": "a", "warmup": {"uniform": [0, 1]}},
        },
        "space.warmup: a grid search can't walk a continuous range.",
    ),
]


@pytest.mark.parametrize(("sections", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_fault_says_where_what_and_what_is_allowed(
    sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        from_mapping(_changed(**sections))
    (fault,) = raised.value.messages
    assert message in fault


def test_faults_of_the_tasks_options_are_said_with_the_others(write: Write) -> None:
    path = write(
        """
task: classification
data: {file: a.csv, split: {selection: 0, report: 0.1}, metrics: [acuracy]}
space: {model: [a], quantization: [nf5]}
budget: {train_examples: 1, eval_examples: 3, seed: 1}
search: {trials: 1}
"""
    )
    assert _faults(path) == [
        f"{path}: space.quantization: got 'nf5'. Did you mean 'nf4'?",
        f"{path}: data.split.selection: got 0; needs a share above 0 and below 1.",
        f"{path}: data.metrics: no metric named 'acuracy'. Did you mean 'accuracy'?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; needs task, data"),
        ("# only a comment\n", "is empty"),
        ("- task: finqa\n", "holds a list; needs a mapping with task, data"),
        ("finqa", "holds 'finqa'; needs a mapping"),
    ],
)
def test_a_file_holds_a_mapping(write: Write, text: str, message: str) -> None:
    path = write(text)
    (fault,) = _faults(path)
    assert fault.startswith(f"{path}: {message}")


@given(spaces.varied, spaces.rules)
@settings(max_examples=30, deadline=None)
def test_a_sweep_written_and_read_again_is_the_same(
    space: dict[str, Any], exclude: list[dict[str, Any]]
) -> None:
    try:
        config = from_mapping(_changed(space=space, exclude=exclude, scheduler="none"))
    except InputError as error:
        assert "nothing is left" in str(error)  # the rules that were drawn may leave nothing
        return
    text = yaml.safe_dump(to_mapping(config), sort_keys=False)
    assert from_mapping(yaml.safe_load(text)) == config


def test_a_sweep_does_not_change_with_the_mapping_it_was_read_from() -> None:
    value = _changed(data={"generated": {"train": 3}})
    config = from_mapping(value)
    value["data"]["generated"]["train"] = 4
    to_mapping(config)["data"]["generated"]["train"] = 5
    assert config.data == {"generated": {"train": 3}}


def test_overrides_come_before_the_check(write: Write) -> None:
    path = write(yaml.safe_dump(MINIMAL))
    config = load_config(
        path, ["search.trials=9", "space.quantization=[none]", "data.context=full"]
    )
    expected = from_mapping(
        _changed(
            search={"trials": 9},
            space={**MINIMAL["space"], "quantization": ["none"]},
            data={"context": "full"},
        )
    )
    assert config == expected


def test_a_fault_of_an_override_names_the_override(write: Write) -> None:
    path = write(yaml.safe_dump(_changed(objective="acc")))
    assert _faults(path, "search.trials=-3", "space.method.lora.rnak=4", "bugdet.seed=1") == [
        "--set bugdet.seed=1: bugdet: unknown key. Did you mean 'budget'?",
        f"{path}: objective: got 'acc'. Did you mean 'em_acc'?",
        "--set space.method.lora.rnak=4: space.method.lora.rnak: unknown key. Did you mean 'rank'?",
        "--set search.trials=-3: search.trials: got -3; needs a whole number >= 1.",
    ]


def test_narrowing_a_space_does_not_break_its_rules(write: Write) -> None:
    path = write(yaml.safe_dump(_changed(exclude=[{"quantization": "nf4", "rank": 8}])))
    assert isinstance(load_config(path, ["space.quantization=[none]"]), SweepConfig)


def test_what_begins_with_x_holds_anchors_and_is_not_read(write: Write) -> None:
    minimal = yaml.safe_dump({**MINIMAL, "space": None})
    path = write(
        "x-lora: &lora {rank: [4, 8]}\n"
        + minimal.replace("space: null", "space: {model: [{m: *lora}, {n: *lora}]}")
    )
    assert to_mapping(load_config(path))["space"] == {
        "model": [{"m": {"rank": [4, 8]}}, {"n": {"rank": [4, 8]}}]
    }
    changed = load_config(path, ["space.model.n.rank=2", "x-lora.rank=3"])
    assert to_mapping(changed)["space"] == {"model": [{"m": {"rank": [4, 8]}}, {"n": {"rank": 2}}]}
    assert _faults(write(f"y-lora: 1\n{yaml.safe_dump(MINIMAL)}"))[0].endswith(
        "y-lora: unknown key. Allowed: budget, data, exclude, execution, limits, objective, "
        "resources, scheduler, search, space, task."
    )


def test_a_knob_that_nothing_reads_is_a_fault_unless_an_override_narrows_the_space(
    write: Write,
) -> None:
    space = {"model": "m", "batch_size": [4, "auto"], "effective_batch_size": 16}
    path = write(yaml_text(_changed(space=space)))
    assert (
        load_config(path, ["space.batch_size=4"]).space
        == from_mapping(_changed(space={**space, "batch_size": 4})).space
    )
    reason = (
        "no trial of this space reads it; it is read with method: lora, full, partial or bias and "
        "batch_size: auto. Leave it out."
    )
    overrides = ["space.batch_size=4", "space.effective_batch_size=32"]
    assert _faults(path, *overrides) == [
        f"--set space.effective_batch_size=32: space.effective_batch_size: {reason}"
    ]
    alone = write(yaml_text(_changed(space={**space, "batch_size": 4})))
    told = [f"{alone}: space.effective_batch_size: {reason}"]
    assert _faults(alone) == _faults(alone, "search.trials=9") == told
    assert load_config(alone, ["space.batch_size=auto"])


def test_every_algorithm_has_a_searcher() -> None:
    from orchestrator.search.samplers import SEARCHERS

    assert set(ALGORITHMS) == set(SEARCHERS)


def test_a_sweep_is_a_value() -> None:
    config = from_mapping(MINIMAL)
    assert replace(config, search=replace(config.search, trials=5)) != config
    assert from_mapping(copy.deepcopy(MINIMAL)) == config
