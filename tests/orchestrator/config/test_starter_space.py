"""A space is written for a data file: it loads, and says what was guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.reader import load_config
from orchestrator.config.starter_space import write_starter_space
from orchestrator.planning.planner import Planner
from orchestrator.sweep import main
from tests.trainables.tasks.own_data.own_file import chats, sentences, write_csv, write_jsonl
from trainables.errors import InputError
from trainables.tasks.registry import make_task


def test_labelled_sentences_become_a_classification(tmp_path: Path) -> None:
    rows = [(f"{at}", *pair, "note") for at, pair in enumerate(sentences(60))]
    data = write_csv(tmp_path / "a.csv", rows, columns=("no", "satz", "klasse", "more"))
    space = tmp_path / "a.yaml"
    text = write_starter_space(space, data)
    config = load_config(space)
    assert config.task == "classification" and str(space) in text
    assert config.data["columns"] == {"input": "satz", "target": "klasse"}
    assert config.data["labels"] == ["negative", "neutral", "positive"]
    options = Planner(config).task_options(next(Planner(config).cell_configurations()))
    assert len(make_task(config.task, options).load("train")) == 42


def test_texts_become_a_completion(tmp_path: Path) -> None:
    rows = [(f"What is {at}?", f"It is the number {at}, so they say.") for at in range(30)]
    data = write_csv(tmp_path / "a.csv", rows, columns=("question", "answer"))
    write_starter_space(tmp_path / "a.yaml", data)
    config = load_config(tmp_path / "a.yaml")
    assert config.task == "completion"
    assert config.data["columns"] == {"input": "question", "target": "answer"}


def test_messages_become_a_chat_that_can_be_planned(tmp_path: Path) -> None:
    data = write_jsonl(
        tmp_path / "a.jsonl", [{"id": at, "messages": each} for at, each in enumerate(chats())]
    )
    write_starter_space(tmp_path / "a.yaml", data)
    config = load_config(tmp_path / "a.yaml")
    assert config.task == "chat" and config.data["columns"] == {"messages": "messages"}
    assert config.data["loss_on"] == "last" and "labels" not in config.data
    planner = Planner(config)
    options = planner.task_options(next(planner.cell_configurations()))
    assert len(make_task(config.task, options).load("train")) == 28


def test_texts_that_are_called_messages_are_texts(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", sentences(60), columns=("messages", "label"))
    write_starter_space(tmp_path / "a.yaml", data)
    config = load_config(tmp_path / "a.yaml")
    assert config.task == "classification" and config.data["columns"]["input"] == "messages"


def test_instructions_become_a_chat_and_their_inputs_are_counted(tmp_path: Path) -> None:
    rows = [(f"Do {at}.", "more " * 200, f"Done {at}, as I was told.") for at in range(30)]
    data = write_csv(tmp_path / "a.csv", rows, columns=("instruction", "input", "output"))
    assert "sequence_length: 512" in write_starter_space(tmp_path / "a.yaml", data)
    config = load_config(tmp_path / "a.yaml")
    assert config.task == "chat"
    assert config.data["columns"] == {"input": "instruction", "target": "output"}
    options = Planner(config).task_options(next(Planner(config).cell_configurations()))
    task = make_task(config.task, options)
    assert task.prompt(task.load("train")[0]).text.endswith("more more ")


def test_long_inputs_get_a_long_sequence(tmp_path: Path) -> None:
    rows = [(f"{'long ' * 500}{at}", "yes" if at % 2 else "no") for at in range(30)]
    data = write_csv(tmp_path / "a.csv", rows, columns=("text", "label"))
    assert "sequence_length: 2048" in write_starter_space(tmp_path / "a.yaml", data)


def test_what_can_t_be_guessed_is_said(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", [("a", ""), ("b", "x")], columns=("text", "label"))
    with pytest.raises(InputError, match="needs two columns that are filled in every row"):
        write_starter_space(tmp_path / "a.yaml", data)
    (tmp_path / "a.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"--init: .*a\.yaml is there already"):
        write_starter_space(tmp_path / "a.yaml", data)
    assert (tmp_path / "a.yaml").read_text() == "mine"


def test_the_command_writes_it_and_says_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "a.csv", sentences(40))
    space = tmp_path / "a.yaml"
    assert main(["--init", str(space), "--data", str(data)]) == 0
    told = capsys.readouterr().out
    assert space.read_text() in told and f"orchestrator.sweep {space} --dry-run" in told
    assert main(["--init", str(tmp_path / "b.yaml")]) == 2
    assert "--init and --data: each needs the other" in capsys.readouterr().err
