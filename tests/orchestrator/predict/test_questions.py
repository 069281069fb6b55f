"""Questions are selected by index, id or number; unknown ones are named in the error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.reader import from_mapping
from orchestrator.predict.questions import (
    chosen_questions,
    option_faults,
    plain_spec,
    task_of,
)
from tests.trainables.tasks.financial import financial_files
from tests.trainables.tasks.own_data import own_file
from tests.trainables.tasks.tatqa import tatqa_file
from trainables.errors import InputError
from trainables.spec.quantization import QUANTIZATIONS
from trainables.tasks.registry import TASKS, find_task, make_task
from trainables.tasks.source import downloaded_data
from trainables.tasks.task import SPLITS, Example

GENERATED = {"kinds": ["latest", "rose"], "train": 12, "selection": 8, "report": 6, "seed": 5}
DATA: dict[str, Any] = {
    "finqa": lambda folder: {"generated": GENERATED},
    "tatqa": tatqa_file.options,
    "completion": own_file.completion,
    "chat": own_file.chat,
    "classification": own_file.classification,
    "tagging": own_file.tagging,
    "fpb": financial_files.fpb,
    "fomc": financial_files.fomc,
    "numclaim": financial_files.numclaim,
    "finer": financial_files.finer,
}
EXAMPLES = [Example(name, {}, group=name) for name in ("A/2016/page_1-1", "A/2016/page_1-2", "7")]


def space(folder: Path, task: str, **top: Any) -> str:
    """A sweep's file with more than one model and method, as a user has it."""
    value = {
        "task": task,
        "data": DATA[task](folder),
        "space": {"model": ["a", "b"], "quantization": [*QUANTIZATIONS], "method": ["lora"], **top},
        "exclude": [{"quantization": "nf4"}],
        "budget": {"train_examples": 10, "eval_examples": 5},
        "search": {"algorithm": "tpe", "trials": 3},
        "execution": {"max_new_tokens": 9},
    }
    file = folder / "space.yaml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(value))))
    return str(file)


def test_a_plain_model_is_asked_with_the_labels_of_the_training_file(
    base_models: Path, tmp_path: Path
) -> None:
    value = yaml.safe_load(Path(space(tmp_path, "classification")).read_text())
    rows = own_file.sentences()
    files = {"train": rows[:20], "selection": rows[20:30], "report": rows[30:]}
    value["data"] = {
        name: str(own_file.write_csv(tmp_path / f"{name}.csv", some))
        for name, some in files.items()
    }
    file = tmp_path / "files.yaml"
    file.write_text(yaml.safe_dump(value))
    spec = plain_spec(str(base_models / "small"), space=str(file), task=None)
    assert len(task_of(spec).load("selection")) == 10


@pytest.mark.parametrize(
    ("samples", "limit", "expected"),
    [
        ([], None, [0]),
        ([], 2, [0, 1]),
        ([], 99, [0, 1, 2]),
        (["1"], None, [1]),
        (["A/2016/page_1-2", "0", "1"], None, [1, 0]),
        (["7"], None, [2]),  # an id before a place
    ],
)
def test_samples_and_limits(samples: list[str], limit: int | None, expected: list[int]) -> None:
    assert chosen_questions(EXAMPLES, samples, limit, split="selection") == expected


def test_all_samples_that_are_not_there_are_told_with_near_ones() -> None:
    with pytest.raises(InputError) as told:
        chosen_questions(EXAMPLES, ["3", "A/2016/page_1-3", "-1", "zebra"], None, split="report")
    many, near, negative, far = told.value.messages
    assert "got 3; the report split has 3 questions, 0 to 2" in many and "got -1" in negative
    assert "Did you mean A/2016/page_1-" in near and "begins with A/2016/page_1-1" in far


def test_options_are_checked_together() -> None:
    faults = option_faults(split="dev", samples=["1"], limit=0, task="fincqa")
    assert len(faults) == 4
    assert "Did you mean 'finqa'" in "\n".join(faults)
    assert option_faults(split="train", samples=[], limit=None, task=None) == []


def test_every_task_has_the_files_that_are_downloaded_for_it() -> None:
    sources = {task: find_task(task).source for task in TASKS}
    assert sources["finqa"] and sources["tatqa"]
    for task, source in sources.items():
        if source is None:
            continue
        files = downloaded_data(task, source)
        if source.option:
            assert files == {source.option: f"data/{task}"}
            continue
        assert files.keys() == set(SPLITS)
        assert {Path(file).name for file in files.values()} == set(source.blobs)
        assert {str(Path(file).parent) for file in files.values()} == {f"data/{task}"}
        make_task(task, files)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_plain_model_is_asked_as_a_sweeps_file_says(
    task: str, quantization: str, base_models: Path, tmp_path: Path
) -> None:
    prompt = list(find_task(task).prompts)[-1]
    file = space(tmp_path, task, prompt=prompt, sequence_length=[64, 128])
    model = str(base_models / "small")
    spec = plain_spec(model, space=file, task=None, overrides=[], quantization=quantization)
    assert spec.knobs["method"] == "untrained" and spec.knobs["quantization"] == quantization
    assert spec.knobs["prompt"] == prompt and spec.knobs["sequence_length"] == 128
    assert spec.model_source == model and spec.execution.max_new_tokens == 9
    assert len(task_of(spec).load("selection")) > 0


@pytest.mark.parametrize("content", ["- task: finqa\n", "finqa", "", "3"])
def test_a_file_that_holds_no_mapping_is_refused(
    content: str, base_models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=r"--space .*space.yaml: holds .*; needs a sweep's file"):
        plain_spec(str(base_models / "small"), space=str(file), task=None)


@pytest.mark.parametrize("split", SPLITS)
def test_a_plain_model_needs_the_file_of_the_split_alone(
    split: str, base_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tatqa_file.options(tmp_path)
    monkeypatch.chdir(tmp_path)
    own = [f"data.{split}={given[split]}"]
    spec = plain_spec(
        str(base_models / "small"), space=None, task="tatqa", overrides=own, split=split
    )
    assert task_of(spec).load(split) == make_task("tatqa", given).load(split)
    space = tmp_path / "space.yaml"
    absent = {other: f"{other}.json" for other in SPLITS}
    data = {**absent, split: given[split]}
    space.write_text(yaml.safe_dump({"task": "tatqa", "data": data}))
    assert plain_spec(
        str(base_models / "small"), space=str(space), task=None, split=split
    ).task_identity == (spec.task_identity)


def test_a_sweep_can_not_leave_out_what_it_trains_on() -> None:
    value = {
        "task": "finqa",
        "data": {"selection": "dev.json", "asked": "selection"},
        "space": {"model": "m"},
        "budget": {"train_examples": 10, "eval_examples": 5},
        "search": {"trials": 3},
    }
    with pytest.raises(InputError, match=r"data\.asked: unknown option"):
        from_mapping(value)


def test_a_file_that_leaves_the_prompt_open_or_is_of_another_task_is_refused(
    base_models: Path, tmp_path: Path
) -> None:
    file, model = space(tmp_path, "finqa", prompt=["short", "default"]), str(base_models / "small")
    with pytest.raises(InputError, match=r"has 2 prompts.*--set space.prompt=default"):
        plain_spec(model, space=file, task="finqa")
    chosen = plain_spec(model, space=file, task=None, overrides=["space.prompt=short"])
    assert chosen.knobs["prompt"] == "short"
    with pytest.raises(InputError, match="--task: got tatqa"):
        plain_spec(model, space=file, task="tatqa")


def test_without_a_file_the_downloaded_data_are_asked_and_their_absence_is_told(
    base_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = [f"data.{split}=absent-{split}.json" for split in ("train", "selection", "report")]
    with pytest.raises(InputError, match=r"absent-selection.json"):
        plain_spec(str(base_models / "small"), space=None, task=None, overrides=missing)
