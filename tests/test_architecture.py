"""The architecture: which package may import which, what an import loads, limits of size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TOPS = ("orchestrator", "trainables")
MOST_FILES, MOST_LINES = 14, 340

# package -> the packages of the same top level that it may import | those of the other one.
# What a row does not name, here or below, is refused; the doors may import anything of the driver.
MAY_IMPORT = {
    "trainables/errors": "",
    "trainables/standard_streams": "",
    "trainables/command_line": "errors standard_streams storage",
    "trainables/methods": "errors",
    "trainables/spec": "errors methods",
    "trainables/storage": "errors spec",
    "trainables/models": "errors methods spec",
    "trainables/metrics": "errors spec",
    "trainables/tasks": "command_line errors metrics spec",
    "trainables/data": "errors models spec storage tasks",
    "trainables/resources": "models spec",
    "trainables/evaluation": "data errors methods models resources spec tasks",
    "trainables/training": "data errors evaluation methods models resources spec storage",
    "trainables/preflight": "data errors methods models spec tasks",
    "trainables/simulation": "data errors evaluation methods models preflight resources spec "
    "storage tasks training",
    "trainables/workers": "data errors models resources spec storage training",
    "orchestrator/formatting": "| spec",
    "orchestrator/space": "| errors methods spec",
    "orchestrator/shipped_files": "",
    "orchestrator/cli": "shipped_files | errors storage",
    "orchestrator/config": "space | errors spec tasks",
    "orchestrator/runs": "config formatting shipped_files space | errors resources spec storage "
    "tasks",
    "orchestrator/analysis": "runs | metrics spec tasks",
    "orchestrator/planning": "config formatting runs shipped_files space | errors methods models "
    "preflight resources spec storage tasks",
    "orchestrator/search": "config planning runs space | errors spec",
    "orchestrator/tracking": "analysis runs | errors spec storage",
    "orchestrator/reporting": "analysis formatting runs | errors metrics spec storage",
    "orchestrator/cluster": "config formatting planning runs shipped_files space | errors models "
    "spec storage workers",
    "orchestrator/preflight": "planning space | errors preflight spec storage",
    "orchestrator/execution": "analysis cluster config formatting planning preflight reporting "
    "runs search space tracking | errors spec storage tasks workers",
    "orchestrator/predict": "cli config formatting planning reporting runs shipped_files | "
    "command_line errors resources spec standard_streams storage tasks",
    "orchestrator/decode": "analysis config formatting predict reporting runs space | "
    "command_line errors resources spec storage tasks",
    "orchestrator/doctor": "cli cluster config planning preflight runs space tracking | "
    "command_line errors preflight storage workers",
}
DOORS = {"orchestrator/" + name for name in ("ask", "report", "score", "status", "sweep", "track")}

# third-party library -> the packages that may import it; libraries not named may be anywhere.
THIRD_PARTY = {
    "mlflow": {"orchestrator/tracking"},
    "optuna": {"orchestrator/search"},
    "ray": {
        "orchestrator/cluster",
        "orchestrator/doctor",
        "orchestrator/execution",
        "orchestrator/search",
        "trainables/workers",
    },
    "deepspeed": {"trainables/training"},
    "bitsandbytes": {"trainables/models", "trainables/simulation", "trainables/training"},
    "matplotlib": {"orchestrator/reporting"},
    "obstore": {"trainables/storage"},
    "rich": {"orchestrator/execution", "orchestrator/reporting"},
}
HEAVY = {"torch", "transformers", "peft", "deepspeed", "bitsandbytes"}
WITHOUT_TORCH = ("errors", "methods", "spec", "storage", "tasks")  # of trainables
COMMANDS = ("ask", "doctor", "predict", "report", "score", "status", "sweep", "track")

ALIAS_FILE = "orchestrator/ask.py"  # the older name of an option, and the metric that it is for
ALIAS_LINE = '_ALIAS, _ALIAS_METRIC = "--min-em-acc", "em_acc"'

FILES = [file for top in TOPS for file in sorted((REPOSITORY / top).rglob("*.py"))]


def place(file: Path) -> str:
    return str(file.relative_to(REPOSITORY))


EACH_FILE = pytest.mark.parametrize("file", FILES, ids=place)


def test_every_package_has_a_row_and_every_row_a_package() -> None:
    found = {package_of(module_of(file)) for file in FILES} - {"orchestrator", "trainables"}
    assert found - DOORS == set(MAY_IMPORT)


@EACH_FILE
def test_a_package_imports_only_what_its_row_names(file: Path) -> None:
    own = package_of(module_of(file))
    if own in DOORS or own in TOPS:
        assert not {top for top, _ in map(halves, imported_packages(file))} - set(TOPS)
        return
    same, _, other = MAY_IMPORT[own].partition("|")
    top = own.split("/")[0]
    allowed = {own} | {f"{top}/{name}" for name in same.split()}
    allowed |= {f"{next(t for t in TOPS if t != top)}/{name}" for name in other.split()}
    assert not imported_packages(file) - allowed


@EACH_FILE
def test_the_driver_does_not_compute_and_the_worker_does_not_decide(file: Path) -> None:
    is_driver = place(file).startswith("orchestrator/")
    refused = HEAVY if is_driver else {"orchestrator", "mlflow", "optuna"}
    assert not libraries(file) & refused


@pytest.mark.parametrize("library", THIRD_PARTY)
def test_a_library_is_imported_only_in_its_packages(library: str) -> None:
    found = {package_of(module_of(file)) for file in FILES if library in libraries(file)}
    assert found <= THIRD_PARTY[library]


def test_no_module_and_no_package_imports_itself_in_a_circle() -> None:
    modules = {module_of(file): set(imported_modules(file)) for file in FILES}
    packages: dict[str, set[str]] = defaultdict(set)
    for module, targets in modules.items():
        own = package_of(module)
        packages[own] |= {package_of(target) for target in targets} - {own}
    assert list(circles(modules)) == []
    assert list(circles(packages)) == []


def test_no_folder_is_crowded() -> None:
    folders: dict[Path, int] = defaultdict(int)
    for file in FILES:
        folders[file.parent] += file.name != "__init__.py"
    assert {place(folder): count for folder, count in folders.items() if count > MOST_FILES} == {}


@EACH_FILE
def test_a_file_says_its_subject_and_is_no_longer_than_a_file_may_be(file: Path) -> None:
    text = file.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert len(text.splitlines()) <= MOST_LINES
    if file.name == "__init__.py":
        assert len(tree.body) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_help_without_loading_anything_heavy(command: str) -> None:
    module = f"orchestrator.{command}"
    module += ".__main__" if (REPOSITORY / "orchestrator" / command).is_dir() else ""
    assert not {*HEAVY, "ray", "mlflow", "optuna", "matplotlib"} & loaded_by([module])


def test_what_the_driver_needs_of_the_worker_loads_no_torch() -> None:
    modules = [module_of(file) for file in FILES if is_without_torch(module_of(file))]
    assert modules
    assert not HEAVY & loaded_by(modules)


def test_the_readme_names_every_package_and_no_other() -> None:
    tree = (REPOSITORY / "README.md").read_text().partition("## The tree")[2]
    named = set(re.findall(r"^\| `\s*((?:orchestrator|trainables)/[a-z_/]+)`", tree, re.M))
    folders = {place(file.parent) for file in FILES} - set(TOPS)
    assert named - {"orchestrator", "trainables"} == folders


@EACH_FILE
def test_only_tasks_name_their_metrics(file: Path) -> None:
    """The driver and the rest of the worker know a metric by what its task declares."""
    if place(file).startswith("trainables/tasks/"):
        return
    named = [line for line in file.read_text().splitlines() if re.search("em_acc|EmAcc", line)]
    allowed = [ALIAS_LINE] if place(file) == ALIAS_FILE else []
    assert [line for line in named if not line.startswith(tuple(allowed))] == []


def test_search_spaces_are_data() -> None:
    files = [file for file in (REPOSITORY / "search_spaces").rglob("*") if file.is_file()]
    assert files
    assert {file.suffix for file in files} <= {".yaml", ".md"}


@EACH_FILE
def test_nothing_that_came_in_as_data_is_executed(file: Path) -> None:
    """No pickle, no eval, no YAML loader that makes objects."""
    assert not libraries(file) & {"pickle", "cloudpickle", "marshal", "shelve", "dill"}
    calls = [node.func for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)]
    plain = {call.id for call in calls if isinstance(call, ast.Name)}
    methods = {call.attr for call in calls if isinstance(call, ast.Attribute)}
    assert not plain & {"exec", "eval"}
    assert not (plain | methods) & {"unsafe_load", "full_load"}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def package_of(module: str) -> str:
    """`orchestrator/space` for `orchestrator.space.tree`; a module at the top is a package."""
    return "/".join(module.split(".")[:2])


def halves(package: str) -> tuple[str, str]:
    top, _, name = package.partition("/")
    return top, name


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function, as far as files go."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, "no relative imports"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if is_module(inner) else node.module


def is_module(name: str) -> bool:
    path = REPOSITORY / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imported_modules(file: Path) -> Iterator[str]:
    """Those of this project but itself."""
    found = (name for name in imports(file) if name.split(".")[0] in TOPS)
    return (name for name in found if name != module_of(file))


def imported_packages(file: Path) -> set[str]:
    return {package_of(name) for name in imported_modules(file)}


def libraries(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)}


def is_without_torch(module: str) -> bool:
    top, _, rest = module.partition(".")
    return top == "trainables" and rest.partition(".")[0] in WITHOUT_TORCH


def loaded_by(modules: Iterable[str]) -> set[str]:
    """What is in sys.modules after these were imported in a process of their own."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return set(done.stdout.split())


def circles(edges: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Each pair of names from which one comes back to oneself, as the way there."""
    for start in edges:
        seen: dict[str, str] = {}
        waiting = [start]
        while waiting:
            here = waiting.pop()
            for target in edges.get(here, ()):
                if target == start:
                    yield [start, here]
                if target not in seen:
                    seen[target] = here
                    waiting.append(target)
