"""Strategies are tried on a finished trial, and what a file holds is not asked again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.decode.__main__ import main
from orchestrator.decode.grid import USUAL
from orchestrator.decode.tried import read_tried
from tests.tiny_trials import make_spec, run
from trainables.storage.trial_folder import TrialFolder

GRID = "[greedy, {sample: {temperature: 0.8, votes: [1, 3]}}, {beam: {beams: 2}}]"


@pytest.fixture(scope="module")
def trial(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> TrialFolder:
    folder = tmp_path_factory.mktemp("trials")
    spec = make_spec(tiny_llama)
    run(spec, folder)
    return TrialFolder(folder / spec.trial_id)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "json"])
def test_each_strategy_is_measured_and_none_is_asked_twice(
    ending: str, trial: TrialFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"tried.{ending}"
    arguments = [str(trial.path), "--output", str(output)]
    assert main([*arguments, "--grid", "greedy"]) == 0
    (greedy,) = _rows(output)
    summary = trial.summary() or {}
    assert float(greedy["em_acc"]) == summary["metrics"]["em_acc"]
    assert float(greedy["low"]) <= float(greedy["em_acc"]) <= float(greedy["high"])
    capsys.readouterr()
    assert main([*arguments, "--grid", GRID]) == 0
    printed = capsys.readouterr()
    assert "1 of 4 are in" in printed.err
    assert "3 of 3 strategies answered: beam beams 2" in printed.err
    for name in ("greedy", "sample temperature 0.8, votes 3", "beam beams 2", "EmAcc", "8 quest"):
        assert name in printed.out
    rows = _rows(output)
    assert len(rows) == 4 and rows[0] == greedy
    before = output.read_bytes()
    assert main([*arguments, "--grid", GRID]) == 0  # nothing is asked
    assert output.read_bytes() == before


@pytest.mark.slow
def test_a_seed_gives_the_same_answers_again(trial: TrialFolder, tmp_path: Path) -> None:
    grid = "{sample: {temperature: 1.5, decoding_seed: 3, votes: 3}}"
    found = []
    for name in ("one.json", "two.json"):
        assert main([str(trial.path), "--grid", grid, "--output", str(tmp_path / name)]) == 0
        (row,) = read_tried(tmp_path / name)
        found.append({name: value for name, value in row.items() if "seconds" not in name})
    assert found[0] == found[1]


def test_all_faults_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--grid", "[greedily]", "--limit", "0", "--best", "0", "--output", "x.txt"]
    assert main([str(tmp_path / "none"), *wrong, "--split", "dev"]) == 2
    error = capsys.readouterr().err
    for part in ("--grid", "--limit", "--best", "--output", "--split", "is neither a run nor"):
        assert part in error


def test_a_file_of_something_else_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (
        ("a.csv", "id,label\n1,2\n"),
        ("d.csv", "id\n"),
        ("e.json", "[]"),
        ("b.json", '{"a": 1}'),
        ("c.json", "[1"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(Exception, match=name):
            read_tried(tmp_path / name)
        assert (tmp_path / name).read_text() == text


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for part in ("--grid", "--output FILE", "votes", "exit codes", USUAL, "examples"):
        assert part in text


def _rows(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".json":
        rows: list[dict[str, Any]] = json.loads(file.read_text())
        return rows
    return list(csv.DictReader(file.open()))
