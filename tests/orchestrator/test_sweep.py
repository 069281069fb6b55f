"""The sweep command: bad input ends at once with code 2 and one clear message."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sweep import main, resume_command
from tests.orchestrator import tiny_sweep
from trainables.storage.run_folder import RunFolder

SMALL = str(tiny_sweep.REPOSITORY / "base_models" / "small")
Given = tuple[dict[str, Any], list[str]]


def space(**knobs: Any) -> dict[str, Any]:
    return {"space": {**tiny_sweep.mapping(SMALL)["space"], **knobs}}


def split_files(folder: Path, train: str) -> dict[str, Any]:
    record = {"id": "a", "question": "?", "program": "add(1, 2)", "exe_ans": 3.0}
    page = {"pre_text": [], "post_text": [], "table": [["", "1"]]}
    (folder / "train.jsonl").write_text(train)
    (folder / "dev.jsonl").write_text(json.dumps({**record, **page}) + "\n")
    return {"data": {"train": str(folder / "train.jsonl"), "selection": str(folder / "dev.jsonl")}}


CASES: dict[str, tuple[Callable[[Path], Given], list[str]]] = {
    "unknown key": (lambda _: ({"serach": {}}, []), ["serach", "Did you mean 'search'?"]),
    "unknown knob": (lambda _: (space(rnak=3), []), ["space.rnak", "Did you mean 'rank'?"]),
    "empty list": (lambda _: (space(rank=[]), []), ["space.rank"]),
    "range upside down": (
        lambda _: (space(learning_rate={"log_uniform": [1.0, 0.1]}), []),
        ["space.learning_rate", "1.0", "0.1"],
    ),
    "unknown quantization": (
        lambda _: (space(quantization=["none", "nf5"]), []),
        ["space.quantization", "nf5", "Did you mean 'nf4'?"],
    ),
    "unknown method": (lambda _: (space(method=["lorra"]), []), ["'lorra'", "'lora'?"]),
    "unknown task": (lambda _: ({"task": "finqaa"}, []), ["task: ", "Did you mean 'finqa'?"]),
    "nothing left": (
        lambda _: ({"exclude": [{"quantization": ["none", "nf4"]}]}, []),
        ["exclude: nothing is left"],
    ),
    "no model folder": (
        lambda here: (space(model=str(here / "absent")), []),
        ["absent does not exist"],
    ),
    "a folder that is no model": (
        lambda here: (space(model=str(here)), []),
        ["has no config.json"],
    ),
    "no data file": (
        lambda here: ({"data": {"train": str(here / "t.json"), "selection": "d.json"}}, []),
        ["t.json", "no such file"],
    ),
    "data that is no JSON": (
        lambda here: (split_files(here, '{"id": "a"\n'), []),
        ["train.jsonl:1: not valid JSON"],
    ),
    "a malformed record": (
        lambda here: (split_files(here, '{"id": "b"}\n'), []),
        ["train.jsonl:1: "],
    ),
    "a negative number of trials": (lambda _: ({}, ["--trials", "-1"]), ["got -1"]),
    "no trials": (lambda _: ({}, ["--trials", "0"]), ["got 0"]),
    "a path that leads nowhere": (
        lambda _: ({}, ["--set", "space.rank.alpha=3"]),
        ["--set space.rank.alpha=3"],
    ),
    "an override of an unknown key": (
        lambda _: ({}, ["--set", "search.trails=3"]),
        ["--set search.trails=3", "Did you mean 'trials'?"],
    ),
    "an override without a value": (lambda _: ({}, ["--set", "rank"]), ["PATH=VALUE"]),
}


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", started)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_told_once_and_clearly(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, fragments = CASES[case]
    sections, arguments = given(tmp_path)
    file = tiny_sweep.write_space(tmp_path / "tiny.yaml", tiny_sweep.mapping(SMALL, **sections))
    storage = tmp_path / "runs"
    assert main([str(file), "--storage", str(storage), "--address", "local", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    for fragment in fragments:
        assert fragment in said.err
    assert all(line.startswith(("error: ", "  ")) for line in said.err.splitlines())
    assert not storage.exists(), "bad input leaves nothing behind"


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("task: finqa\nspace: {model: [a\n", ["line 3"]),
        ("task: finqa\ntask: finqa\n", ["line 2", "duplicate key 'task'"]),
        ("- task\n", ["holds a list"]),
        ("", ["is empty"]),
    ],
)
def test_a_file_that_is_no_space(
    text: str, fragments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    assert main([str(file), "--storage", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    for fragment in (str(file), *fragments):
        assert fragment in said
    assert len(said.splitlines()) == 1


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("place", ["runs", "runs/tiny", "runs/tiny/deeper"])
def test_storage_that_can_not_be_written(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space_file = tiny_sweep.write_space(tmp_path / "tiny.yaml", tiny_sweep.mapping(SMALL))
    in_the_way = tmp_path / place
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file")
    storage = tmp_path / "runs" / ("tiny/deeper" if place.endswith("deeper") else "")
    assert main([str(space_file), "--storage", str(storage)]) == 2
    said = capsys.readouterr().err
    assert "can't be written" in said and "--storage" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [(["absent.yaml"], "absent.yaml: no such file."), (["--set", "rank"], "PATH=VALUE")],
)
def test_the_program_itself_ends_with_2_without_a_traceback(
    arguments: list[str], fragment: str
) -> None:
    done = program(*arguments)
    assert done.returncode == 2
    assert fragment in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_an_unknown_option_ends_with_2() -> None:
    done = program("--trails", "3")
    assert done.returncode == 2
    assert "--trails" in done.stderr


def test_a_dry_run_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tiny_sweep.write_space(tmp_path / "tiny.yaml", tiny_sweep.mapping(SMALL))
    given = [str(file), "--storage", str(tmp_path / "runs"), "--dry-run", "--no-predict"]
    assert main(given) == 0
    assert "4 trials of 4 configurations" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_a_second_driver_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from orchestrator.runs.lease import Lease

    file = tiny_sweep.write_space(tmp_path / "tiny.yaml", tiny_sweep.mapping(SMALL))
    with Lease(RunFolder(tmp_path / "runs" / "tiny")):
        assert main([str(file), "--storage", str(tmp_path / "runs")]) == 2
    assert "is running this sweep" in capsys.readouterr().err


def test_the_line_that_resumes_says_all_that_was_said() -> None:
    from orchestrator.sweep import _parser

    words = ["my space.yaml", "--name", "n", "--storage", "s", "--trials", "4"]
    words += ["--tracking-uri", "http://x", "--address", "local", "--set", "a.b=[c, d]"]
    line = resume_command(_parser().parse_args(words))
    again = shlex.split(line)
    assert again[:3] == ["python", "-m", "orchestrator.sweep"]
    assert _parser().parse_args(again[3:]) == _parser().parse_args(words)


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "data.train=/d/token=1/x.json", "--set", "data.selection=/d/pwd=2"],
        ["--storage", "s3://bucket/token=1/api_key=2", "--name", "secret=3"],
        ["--storage", "/data/a@b", "--set", "data.train=s3://bucket/a@b/x.json"],
        ["--tracking-uri", "sqlite:////d/password=1/mlflow.db"],
    ],
)
def test_a_path_is_no_secret_and_the_line_can_be_pasted(words: list[str]) -> None:
    from orchestrator.sweep import _parser

    given = _parser().parse_args(["x.yaml", *words])
    line = shlex.split(resume_command(given))
    assert _parser().parse_args(line[3:]) == given


def test_a_name_is_that_of_a_folder_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tiny_sweep.write_space(tmp_path / "tiny.yaml", tiny_sweep.mapping(SMALL))
    plain = "needs a plain name, the folder of this run in --storage."
    mlflow = "needs another name: MLflow keeps its files there."
    for name, told in {
        "x" * 300: "needs at most 200 bytes; it has 300.",
        "ü" * 150: "needs at most 200 bytes; it has 300.",
        "artifacts": mlflow,
        "mlflow.db": mlflow,
        "mlflow.db-wal": mlflow,
        "mlruns": mlflow,
        "": plain,
        " ": plain,
        ".": plain,
        "..": plain,
        ".hidden": plain,
        "a/b": plain,
        "a\\b": plain,
        "a\nb": plain,
        "a\0b": plain,
    }.items():
        assert main([str(file), f"--name={name}", "--storage", str(tmp_path), "--dry-run"]) == 2
        assert capsys.readouterr().err.rstrip().endswith(told)
    artifacts = file.rename(tmp_path / "artifacts.yaml")
    assert main([str(artifacts), "--storage", str(tmp_path), "--dry-run"]) == 2
    assert f"--name: got 'artifacts'; {mlflow}" in capsys.readouterr().err


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([f"{LONG}.yaml"], "can't be read: File name too long."),
        (["FILE", "--set", f"space.model=/m/{LONG}"], "does not exist. Give a model's folder or"),
        (["FILE", "--set", "space.model=~nobody-of-that-name/m"], "does not exist. Give a model's"),
        (["FILE", "--set", f"space.prompt=/p/{LONG}.txt"], "is neither a named prompt nor a"),
        (["FILE", "--set", f"data={{train: /{LONG}, selection: s}}"], "can't be read: "),
        (["FILE", "--set", 'data={train: "a\\0b", selection: s}'], "the file can't be read: "),
    ],
)
def test_a_text_that_can_be_no_path_is_told(
    words: list[str],
    told: str,
    tmp_path: Path,
    base_models: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    space = tiny_sweep.mapping(str(base_models / "small"))
    file = tiny_sweep.write_space(tmp_path / "tiny.yaml", space)
    given = [str(file) if word == "FILE" else word for word in words]
    assert main([*given, "--storage", str(tmp_path / "runs"), "--dry-run", "--no-predict"]) == 2
    assert told in capsys.readouterr().err


def test_a_storage_with_a_name_that_is_too_long_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tiny_sweep.write_space(tmp_path / "tiny.yaml", tiny_sweep.mapping(SMALL))
    assert main([str(file), "--storage", str(tmp_path / LONG)]) == 2
    assert "--storage: a folder's name of 300 bytes" in capsys.readouterr().err


class _InterruptedImport:
    """Ctrl-C while a module is imported."""

    def find_spec(self, name: str, *more: object) -> None:
        if name == "orchestrator.planning.planner":
            raise KeyboardInterrupt


def test_ctrl_c_while_the_program_loads_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "orchestrator.planning.planner", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_InterruptedImport(), *sys.meta_path])
    assert main(["x.yaml"]) == 130
    assert "Resume with: python -m orchestrator.sweep x.yaml" in capsys.readouterr().err


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.sweep", *arguments],
        cwd=tiny_sweep.REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_line_that_resumes_holds_no_password() -> None:
    uri = "https://somebody:marker-secret@tracking.example:5000"
    given = Namespace(space="x.yaml", name=None, storage="runs", tracking_uri=uri, trials=3)
    given.address, given.no_predict = None, False
    given.set = ["data.train=https://a/b?token=marker-secret"]
    line = resume_command(given)
    assert "marker-secret" not in line
    assert "--trials 3" in line and "--tracking-uri" in line
