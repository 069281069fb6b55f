"""The score command: every gold record counts once, and bad input is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator import score
from tests.trainables.tasks.tatqa import tatqa_file
from trainables.tasks.exact_match import answer_text
from trainables.tasks.finqa.files import read_gold

GOLD = {"a-1": 94.0, "a-2": 0.09371, "b-1": "yes", "b-2": 0.0}


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    return write(tmp_path / "gold.jsonl", [{"id": key, "exe_ans": GOLD[key]} for key in GOLD])


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def predictions(folder: Path, **changes: Any) -> Path:
    given = {"a-1": "94", "a-2": "so\nAnswer: 9.37%", "b-1": "Yes.", "b-2": "0", **changes}
    records = [{"id": key, "prediction": value} for key, value in given.items()]
    return write(folder / "predictions.jsonl", records)


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = score.main(["--task", "finqa", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_one_json_object(tmp_path: Path, gold: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = predictions(tmp_path, **{"a-1": None})
    code, out, err = run(path, "--gold", gold, "--json", capsys=capsys)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert {name: result[name] for name in result if name != "half_width_95"} == {
        "em_acc": 0.75,
        "em_acc_strict": 0.5,
        "no_marker_rate": 0.0,
        "percent_scale_rate": 0.0,
        "unparsed_rate": 0.25,
        "em_acc_numeric": 2 / 3,
        "count": 4,
        "count_numeric": 3,
        "task": "finqa",
        "rule_version": "1",
    }


def test_a_table_with_its_half_width(
    tmp_path: Path, gold: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(predictions(tmp_path), "--gold", gold, capsys=capsys)
    assert code == 0
    assert "4 questions" in out
    assert "em_acc               100.00%  +- " in out


@pytest.mark.parametrize("prediction", [None, "", "  ", "n/a", "1,23"])
def test_a_null_empty_or_unreadable_prediction_is_wrong(
    tmp_path: Path, gold: Path, prediction: str | None
) -> None:
    path = predictions(tmp_path, **{"b-2": prediction})
    result = score.score_files(path, task="finqa", gold=gold)
    assert result["em_acc"] == 0.75
    assert result["unparsed_rate"] == 0.25


def test_a_line_without_the_field_is_wrong_and_a_number_is_read_as_text(
    tmp_path: Path, gold: Path
) -> None:
    records: list[Any] = [{"id": key, "prediction": GOLD[key]} for key in ("a-1", "a-2", "b-2")]
    path = write(tmp_path / "p.jsonl", [*records, {"id": "b-1", "seconds": 2}])
    assert score.score_files(path, task="finqa", gold=gold)["em_acc_strict"] == 0.75


def test_with_the_marker_required(tmp_path: Path, gold: Path) -> None:
    result = score.score_files(predictions(tmp_path), task="finqa", gold=gold, marker_required=True)
    assert result["no_marker_rate"] == 0.75
    assert result["em_acc"] == 0.25


def test_real_gold_scores_one(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shared_data / "finqa" / "test.jsonl.gz"
    lines = [
        {"id": key, "prediction": answer_text(value)} for key, value in read_gold(file).items()
    ]
    code, out, _ = run(write(tmp_path / "p.jsonl", lines), "--gold", file, "--json", capsys=capsys)
    result = json.loads(out)
    assert code == 0
    assert result["em_acc"] == result["em_acc_strict"] == 1.0
    assert result["count"] == 1147


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"id": "a-1", "prediction": "94"}], "no line for 3 ids (a-2, b-1, b-2) in"),
        ([{"id": key} for key in (*GOLD, "z-9", "z-8")], "2 ids (z-9, z-8) not in"),
        ([{"id": key} for key in (*GOLD, "a-1")], ":5: a second prediction for the id 'a-1'"),
        (["94"], ":1: not of the form"),
        ([{"prediction": "94"}], ":1: not of the form"),
        ([{"id": "a-1", "prediction": ["94"]}], ":1: the prediction of 'a-1' is not a string"),
        ([{"id": "a-1", "prediction": True}], ":1: the prediction of 'a-1' is not a string"),
        ([], "holds no records"),
    ],
)
def test_bad_predictions_are_an_error_and_not_a_score(
    tmp_path: Path,
    gold: Path,
    records: list[Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / "p.jsonl", records)
    code, out, err = run(path, "--gold", gold, "--json", capsys=capsys)
    assert (code, out) == (2, "")
    assert message in err


def test_bad_files_and_names(
    tmp_path: Path, gold: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = predictions(tmp_path)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "a-1", "prediction": "94"}\n{"id"\n')
    assert "no such file" in run("none.jsonl", "--gold", gold, capsys=capsys)[2]
    assert "no such file" in run(path, "--gold", "none.json", capsys=capsys)[2]
    assert "broken.jsonl:2: not valid JSON" in run(broken, "--gold", gold, capsys=capsys)[2]
    assert "exe_ans" in run(path, "--gold", path, capsys=capsys)[2]
    assert score.main(["--task", "finqua", str(path), "--gold", str(gold)]) == 2
    assert "Did you mean 'finqa'?" in capsys.readouterr().err


def test_the_command_starts_at_once_and_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "ray", "mlflow", "optuna", "numpy")
    program = (
        "import sys, orchestrator.score, trainables.tasks.finqa.task, trainables.tasks.download;"
        f" print([name for name in {heavy} if name in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - start < 10.0


def test_help_teaches_by_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.score", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert '{"id": "ETR/2016/page_23.pdf-2", "prediction": "94"}' in done.stdout
    assert "--gold data/finqa/test.json" in done.stdout


def test_tatqa_is_scored_by_its_own_rule(tmp_path: Path) -> None:
    gold = tatqa_file.write(tmp_path / "gold.json", tatqa_file.contexts("x", 1))
    written = {
        "x0-a": "The answer is below.\nAnswer: $1,496.5 million",
        "x0-b": "2019",
        "x0-c": "-0.2222",
        "x0-d": None,
    }
    lines = [json.dumps({"id": name, "prediction": text}) for name, text in written.items()]
    (tmp_path / "predictions.jsonl").write_text("\n".join(lines))
    result = score.score_files(tmp_path / "predictions.jsonl", task="tatqa", gold=gold)
    assert (result["em_acc"], result["em_acc_strict"]) == (0.5, 0.25)
    assert result["f1"] == pytest.approx((1 + 0.67 + 1 + 0) / 4)
    assert (result["count"], result["count_numeric"]) == (4, 2)
    assert "f1" in score._table(result)


@pytest.mark.parametrize("task", ["finqa", "tatqa"])
@pytest.mark.parametrize("form", ['"{}"', "{}", "-{}.5"])
@pytest.mark.parametrize("digits", [309, 400, 4_300, 4_301])
def test_a_model_that_repeats_one_digit_is_wrong_once(
    tmp_path: Path, gold: Path, task: str, form: str, digits: int
) -> None:
    """As text and as a number of JSON, of which Python reads 4,300 digits."""
    if task == "tatqa":
        contexts = tatqa_file.contexts("x", 1)
        gold = tatqa_file.write(tmp_path / "gold.json", contexts)
    names = list(GOLD) if task == "finqa" else [f"x0-{letter}" for letter in "abcd"]
    endless = form.format("9" * digits)
    lines = [f'{{"id": "{name}", "prediction": {endless}}}' for name in names[:-1]]
    lines.append(json.dumps({"id": names[-1], "prediction": "0"}))  # right
    (tmp_path / "predictions.jsonl").write_text("\n".join(lines))
    assert score.score_files(tmp_path / "predictions.jsonl", task=task, gold=gold)["em_acc"] == 0.25
