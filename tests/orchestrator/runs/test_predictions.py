"""Predictions are read once, whole or not at all, and kept as columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.runs.predictions import (
    PredictionReader,
    Predictions,
    Row,
    read_predictions,
    shared_ids,
)
from orchestrator.runs.results import read_trials
from tests.orchestrator.run_builder import add_trial, new_run, question_rows
from trainables.storage.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "quickstart")


def test_a_prediction_that_cannot_be_read_is_left_out_and_said(run: RunFolder) -> None:
    folder = add_trial(run, right=[1, 0])
    folder.discard_result()  # it runs again, and nothing is said of its predictions yet
    with folder.predictions_file().open("a") as file:
        file.write('{"id": "q2", "em_')
    rows, warnings = read_predictions(folder)
    assert [row["id"] for row in rows] == ["q0", "q1"]
    assert len(warnings) == 1 and ":3:" in warnings[0]


@pytest.mark.parametrize("line", ["[1]", '{"prediction": "1"}', '{"id": "q"} {"id": "r"}', "", "1"])
def test_a_line_that_is_no_prediction_is_left_out_and_said(run: RunFolder, line: str) -> None:
    folder = add_trial(run, right=[1, 0])
    folder.discard_result()
    with folder.predictions_file().open("a") as file:
        file.write(f"{line}\n")
    rows, warnings = read_predictions(folder)
    assert len(rows) == 2 and len(warnings) == 1 and ":3:" in warnings[0]


def test_an_empty_file_holds_no_predictions(run: RunFolder) -> None:
    folder = add_trial(run, right=[1, 0])
    folder.discard_result()
    folder.predictions_file().write_text("")
    assert read_predictions(folder) == ([], [])


def test_lines_are_read_one_by_one_where_they_are_no_values_together(run: RunFolder) -> None:
    folder = add_trial(run, right=[1, 0])
    folder.discard_result()
    folder.predictions_file().write_text('{"id": "a"}\n{"id": "b"\n"c": 1}\n{"id": "d"}')
    rows, warnings = read_predictions(folder)
    assert [row["id"] for row in rows] == ["a", "d"] and len(warnings) == 2


def test_an_answer_may_hold_what_unicode_calls_the_end_of_a_line(run: RunFolder) -> None:
    folder = add_trial(run, right=[1, 0])
    written = [{**row, "question": "one\u2028two\x85three"} for row in question_rows([1, 0])]
    folder.write_predictions(written)
    folder.write_summary(folder.summary() or {})
    assert read_predictions(folder) == (written, [])


def test_predictions_that_are_not_those_that_were_scored_are_none(run: RunFolder) -> None:
    folder = add_trial(run, right=[1, 0])
    rows, _ = read_predictions(folder)
    folder.write_predictions([{**rows[0], "em_acc": 0}, rows[1]])
    assert read_predictions(folder)[0] == []
    (trial,) = read_trials(run)
    assert trial.metrics["em_acc"] == 0.5  # the summary is sound
    assert len(trial.warnings) == 1 and "predictions.jsonl: damaged" in trial.warnings[0]


def test_a_file_is_read_once_and_equal_columns_are_kept_once(run: RunFolder) -> None:
    for rank in (2, 4):
        add_trial(run, right=[1, rank == 2], rank=rank, report_right=[1])
    first, second = read_trials(run)
    read = PredictionReader()
    found = read(first)
    first.folder.predictions_file().unlink()
    assert read(first) is found and found.ids == ("q0", "q1")
    assert read(first, "report").ids == ("q0",)
    assert read(second).ids is found.ids
    assert read(second).column("gold") is found.column("gold")
    assert (found.column("em_acc"), read(second).column("em_acc")) == ((1, True), (1, False))


def test_a_row_that_lacks_a_key_has_none_in_its_column() -> None:
    rows: list[Row] = [
        {"id": 1, "em_acc": 1, "kind": "sum"},
        {"id": 2, "gold": "yes"},
        {"gold": 3, "id": 3},
    ]
    found = Predictions.of_rows(rows)
    assert found.ids == ("1", "2", "3")
    assert found.column("kind") == ("sum", None, None) and found.column("gold") == (None, "yes", 3)
    assert found.column("elsewhere") == (None, None, None)
    assert found.row(1) == {"id": "2", "em_acc": None, "kind": None, "gold": "yes"}
    assert found.measured("em_acc").ids == ("1",) and found.measured("elsewhere").ids == ()
    assert Predictions.of_rows([]) == Predictions()


def test_predictions_are_put_in_the_order_of_other_ids() -> None:
    found = Predictions.of_rows(question_rows([1, 0, 1]))
    assert found.at(("q2", "q1")).column("em_acc") == (1, 0)
    assert found.at(("q0", "q1", "q2")) is found
    with pytest.raises(KeyError):
        found.at(("q3",))


def test_shared_ids_are_in_the_order_of_the_first() -> None:
    assert shared_ids([("a", "b", "c"), ("c", "a")]) == ("a", "c")
    assert shared_ids([("a",), ("b",)]) == () and shared_ids([]) == ()
