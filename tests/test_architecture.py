"""The rules that keep driver and worker apart, from the source and from what imports load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
DRIVER = sorted((REPOSITORY / "orchestrator").rglob("*.py"))
WORKER = sorted((REPOSITORY / "trainables").rglob("*.py"))
HEAVY = ("torch", "transformers", "peft", "deepspeed", "bitsandbytes")
LIGHT = (
    "trainables.errors",
    "trainables.spec.trial_spec",
    "trainables.storage.run_folder",
    "trainables.storage.sealed_json",
    "trainables.storage.errors",
    "trainables.spec.checks",
    "trainables.spec.knobs",
    "trainables.spec.constraints",
    "trainables.workers.distributed_trial",
    "trainables.methods.registry",
    "trainables.spec.quantization",
    "trainables.models.model_folder",
    "trainables.models.hub",
    "trainables.tasks.identity",
    "trainables.tasks.finqa.task",
    "trainables.tasks.finqa.synthetic",
    "trainables.tasks.trivial_baselines",
)
ALLOWED_IN = {
    "mlflow": {"mlflow_tracker.py"},
    "optuna": {"search.py", "study_file.py"},
    "deepspeed": {"sharded.py"},
}


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def packages(file: Path) -> set[str]:
    return {module.partition(".")[0] for module in imports(file)}


@pytest.mark.parametrize("file", WORKER, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_the_worker_knows_nothing_of_the_driver(file: Path) -> None:
    assert not packages(file) & {"orchestrator", "mlflow", "optuna"}


def test_the_worker_imports_ray_in_its_host_only() -> None:
    assert [file.name for file in WORKER if "ray" in packages(file)] == ["host.py"]


@pytest.mark.parametrize("file", DRIVER, ids=lambda file: file.name)
def test_the_driver_never_imports_what_computes(file: Path) -> None:
    assert not packages(file) & set(HEAVY)


@pytest.mark.parametrize("package", ALLOWED_IN)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    found = {file.name for file in [*DRIVER, *WORKER] if package in packages(file)}
    assert found <= ALLOWED_IN[package]


@pytest.mark.parametrize(
    "module",
    [
        "orchestrator.sweep",
        "orchestrator.report",
        "orchestrator.ask",
        "orchestrator.predict.__main__",
        "orchestrator.doctor.__main__",
        *LIGHT,
    ],
)
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert not {*HEAVY, "ray", "mlflow", "optuna", "matplotlib"} & set(done.stdout.split())


def test_search_spaces_are_data() -> None:
    files = [file for file in (REPOSITORY / "search_spaces").rglob("*") if file.is_file()]
    assert files
    assert {file.suffix for file in files} <= {".yaml", ".md"}


@pytest.mark.parametrize("file", [*DRIVER, *WORKER], ids=lambda file: file.name)
def test_nothing_that_came_in_as_data_is_executed(file: Path) -> None:
    """No pickle, no eval, no YAML loader that makes objects; models are told so in models.py."""
    assert not packages(file) & {"pickle", "cloudpickle", "marshal", "shelve", "dill"}
    calls = {
        node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
    }
    assert not calls & {"exec", "unsafe_load", "full_load"}
    names = {
        node.func.id
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "eval" not in names
