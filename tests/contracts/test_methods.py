"""The contract of every row of METHODS: spaces can set its fields, `detach` restores the base."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import make_spec, shared_base
from trainables.methods.registry import METHODS, make_method
from trainables.spec.knobs import KNOBS, canonical, check

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("name", METHODS)
def test_every_hyperparameter_is_a_knob_whose_default_it_accepts(name: str) -> None:
    for field in dataclasses.fields(METHODS[name]):
        assert field.name in KNOBS
        assert check(field.name, field.default) is None
        assert KNOBS[field.name].default == field.default


@pytest.mark.parametrize("name", METHODS)
def test_canonical_knobs_make_the_method_with_its_defaults(name: str) -> None:
    assert make_method(canonical({"method": name, "model": "m"})) == METHODS[name]()


@pytest.mark.parametrize("name", METHODS)
def test_something_is_trainable_if_and_only_if_the_method_trains(
    name: str, tiny_llama: Path
) -> None:
    method, base = METHODS[name](), _base(tiny_llama)
    model = method.attach(base, seed=0)
    trainable = any(parameter.requires_grad for parameter in model.parameters())
    method.detach(model)
    assert trainable == method.trains


@pytest.mark.parametrize("name", METHODS)
def test_what_attach_begins_with_is_the_base_and_detach_gives_it_back(
    name: str, tiny_llama: Path
) -> None:
    method, base = METHODS[name](), _base(tiny_llama)
    before = _logits(base)
    model = method.attach(base, seed=0)
    assert torch.equal(_logits(model), before)
    _change(model)
    changed = not torch.equal(_logits(model), before)
    assert method.detach(model) is base
    assert changed == method.trains
    assert torch.equal(_logits(base), before)


@pytest.mark.parametrize("name", METHODS)
def test_what_was_saved_is_loaded(name: str, tiny_llama: Path, tmp_path: Path) -> None:
    method, base = METHODS[name](), _base(tiny_llama)
    model = method.attach(base, seed=0)
    _change(model)
    expected = _logits(model)
    method.save(model, tmp_path)
    method.detach(model)
    loaded = method.load(base, tmp_path)
    assert torch.equal(_logits(loaded), expected)
    method.detach(loaded)
    assert not list(tmp_path.rglob("*.bin"))


@pytest.mark.parametrize("name", METHODS)
def test_it_says_what_planner_report_and_loader_must_know(name: str, tmp_path: Path) -> None:
    method = METHODS[name]
    assert method.title and method.activity
    assert method.trains or not (method.trains_whole_base or method.saves_model)
    lines = [*method.loading_imports, *method.loading_lines(str(tmp_path))]
    ast.parse("\n".join(lines))
    assert lines[-1].endswith(".eval()")


def test_a_trained_method_is_named_once_more_as_the_default() -> None:
    """What else must know of a method asks its attributes.

    Tasks, and their knobs, have a context called "full", and layers a "bias".
    """
    folders = [
        folder
        for top in ("orchestrator", "trainables")
        for folder in (REPOSITORY / top).iterdir()
        if folder.name not in ("methods", "tasks")
    ]
    names = [name for name, method in METHODS.items() if method.trains and name != "bias"]
    found = [
        (file.name, node.value)
        for folder in folders
        for file in ([folder] if folder.is_file() else folder.rglob("*.py"))
        if file.name != "task_knobs.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert found == [("knobs.py", KNOBS["method"].default)]


def _base(folder: Path) -> Any:
    return shared_base(make_spec(folder)).model


def _change(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)


def _logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(20)[None]).logits
    return logits
