"""The content that a trial was planned on is identified by digests; changed content is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import make_spec, shared_base
from trainables.data.trial_data import load_data
from trainables.errors import InputError
from trainables.models.model_folder import check_model
from trainables.spec.trial_spec import TrialSpec
from trainables.tasks.identity import check_task, task_identity
from trainables.tasks.registry import make_task
from trainables.tasks.task import Task


def task_of(spec: TrialSpec) -> Task:
    asked = {name: spec.knobs[name] for name in ("prompt", "target")}
    return make_task(spec.task, {**spec.task_options, **asked})


def test_what_is_as_it_was_planned_passes(tiny_llama: Path) -> None:
    spec = make_spec(tiny_llama)
    assert spec.task_identity == task_identity(task_of(spec))
    check_model(spec)
    check_task(spec, task_of(spec))


@pytest.mark.parametrize(
    ("planned", "told"),
    [
        ({"version": "older"}, "finqa: the task's rule has changed since"),
        ({"prompt": "other"}, "prompt: 'statements' has changed since"),
        ({"context": "evidence"}, "finqa: the context has changed since"),
        ({"evidence": "gold"}, "finqa: where the evidence comes from has changed since"),
        ({"data": {"train": "other"}}, "data: the train split of finqa has changed since"),
    ],
)
def test_what_changed_is_named(planned: dict[str, Any], told: str, tiny_llama: Path) -> None:
    spec = replace(make_spec(tiny_llama), task_identity=planned)
    with pytest.raises(InputError, match=f"{told} this trial was planned; run the sweep under"):
        load_data(spec, shared_base(spec), {})


def test_all_that_changed_is_told_at_once(tiny_llama: Path) -> None:
    planned = {"version": "older", "data": {"selection": "a", "report": "b"}}
    spec = replace(make_spec(tiny_llama), task_identity=planned)
    with pytest.raises(InputError) as raised:
        check_task(spec, task_of(spec))
    assert len(raised.value.messages) == 3


def test_another_model_in_the_folder_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    spec = make_spec(model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(InputError, match=f"the model folder {model} has changed since"):
        check_model(spec)
    shutil.rmtree(model)
    with pytest.raises(InputError, match="does not exist"):
        check_model(spec)


def test_what_was_not_recorded_is_not_checked(tiny_llama: Path) -> None:
    spec = replace(make_spec(tiny_llama), model_digest="", task_identity={"files": "real"})
    check_model(spec)
    check_task(spec, task_of(spec))
    check_model(replace(spec, model_digest="gpt2@0123", model_source="gpt2"))
