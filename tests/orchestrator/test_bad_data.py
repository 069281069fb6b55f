"""Bad data files: each ends the command with 2, and with the file and the line or place of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.sweep import main

Line = Callable[[int], str]
FILES = {"train": "t.csv", "selection": "s.csv", "report": "r.csv"}
LONG = "word " * 60


def _csv(
    count: int = 40, line: Line = lambda at: f"Profit {at} rose,{'up' if at % 2 else 'down'}"
) -> str:
    return "sentence,label\n" + "".join(f"{line(at)}\n" for at in range(count))


def _jsonl(label: Callable[[int], Any]) -> str:
    return "".join(json.dumps({"text": f"t {at}", "label": label(at)}) + "\n" for at in range(20))


Case = tuple[Mapping[str, Any], Mapping[str, str | bytes], str]
CASES: dict[str, Case] = {  # what the space says, the files, and what is told
    "a missing column": (
        {"data": {"columns": {"input": "sentence", "target": "lable"}}},
        {"a.csv": _csv()},
        "a.csv:2: no column 'lable'; there are sentence, label. Did you mean 'label'?",
    ),
    "a label that train has not": (
        {"data": {**FILES, "file": None, "split": None}},
        {
            "t.csv": _csv(),
            "s.csv": "sentence,label\nx,sideways\n",
            "r.csv": "sentence,label\ny,up\n",
        },
        "s.csv:2: the label 'sideways' is none of down, up, the labels of the training rows.",
    ),
    "an empty target": (
        {},
        {"a.csv": _csv(line=lambda at: f"s {at},{'' if at == 4 else 'ab'[at % 2]}")},
        "a.csv:6: 'label' is empty. Fill it in, or remove the row.",
    ),
    "a target that is no number": (
        {"data": {"file": "a.jsonl"}},
        {"a.jsonl": _jsonl(lambda at: at % 2 if at else float("nan"))},
        "a.jsonl:1: 'label' is empty (NaN).",
    ),
    "mixed types": (
        {"data": {"file": "a.jsonl"}},
        {"a.jsonl": _jsonl(lambda at: at % 2 if at else "one")},
        "a.jsonl:2: 'label' holds a number (1), and at ",
    ),
    "a ragged row": (
        {},
        {"a.csv": _csv() + "one,two,three\n"},
        "a.csv:42: 3 fields, and the first line names 2 columns",
    ),
    "another encoding": (
        {},
        {"a.csv": (_csv() + "smörgås,up\n").encode("latin-1")},
        "a.csv:42: the file can't be read: not UTF-8",
    ),
    "UTF-16": (
        {},
        {"a.csv": _csv().encode("utf-16")},
        "a.csv:1: the file can't be read: it seems to be in UTF-16.",
    ),
    "one label": (
        {},
        {"a.csv": _csv(line=lambda at: f"Profit {at},up")},
        "a.csv:2: 'up' is the label of every training row",
    ),
    "an unknown placeholder": (
        {"space": {"prompt": "{sentense}:"}},
        {"a.csv": _csv()},
        "x.yaml: space.prompt: no column 'sentense'",
    ),
    "no rows": ({}, {"a.csv": "sentence,label\n"}, "a.csv: the file holds no rows."),
    "a share of 0": (
        {"data": {"split": {"selection": 0, "report": 0.2}}},
        {"a.csv": _csv()},
        "x.yaml: data.split.selection: got 0; needs a share above 0 and below 1.",
    ),
    "shares that leave nothing": (
        {"data": {"split": {"selection": 0.5, "report": 0.4}}},
        {"a.csv": _csv(2)},
        "x.yaml: data.split: 2 rows in 2 groups leave nothing for train.",
    ),
}
TOKENIZED: dict[str, Case] = {  # a tokenizer is needed to see it
    "shots that do not fit": (
        {
            "space": {
                "method": [{"prompting": {"shots": 8, "shots_too_long": "refuse"}}],
                "sequence_length": 60,
            }
        },
        {"a.csv": _csv()},
        "the longest, a.csv:",
    ),
    "no example after a filter": (
        {"data": {"too_long": "drop"}, "space": {"prompt": LONG + "{sentence}"}},
        {"a.csv": _csv()},
        "the longest, a.csv:",
    ),
}


@pytest.fixture
def told(
    tmp_path: Path,
    base_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """The errors with which a dry run of a case ends."""

    def errors(case: Case, *arguments: str) -> str:
        given, files, _ = case
        monkeypatch.chdir(tmp_path)
        for name, content in files.items():
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        space = _space(str(base_models / "small"), given)
        Path("x.yaml").write_text(yaml.safe_dump(space), encoding="utf-8")
        assert main(["x.yaml", "--dry-run", *arguments]) == 2
        return capsys.readouterr().err

    return errors


def _space(model: str, given: Mapping[str, Any]) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "task": "classification",
        "data": {"file": "a.csv", "split": {"selection": 0.2, "report": 0.2}},
        "space": {
            "model": model,
            "quantization": "none",
            "method": [{"lora": {"rank": 4}}],
            "sequence_length": 64,
        },
        "budget": {"train_examples": 16, "eval_examples": 4, "seed": 1},
        "search": {"algorithm": "grid", "trials": 1},
        "scheduler": "none",
    }
    for section, values in given.items():
        changed = {**usual[section], **values}
        usual[section] = {name: value for name, value in changed.items() if value is not None}
    return usual


@pytest.mark.parametrize("name", CASES)
def test_bad_data_are_told_with_file_and_line(name: str, told: Callable[..., str]) -> None:
    assert CASES[name][2] in told(CASES[name], "--no-predict")


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZED)
def test_what_does_not_fit_is_told_with_file_and_line(name: str, told: Callable[..., str]) -> None:
    assert TOKENIZED[name][2] in told(TOKENIZED[name])
