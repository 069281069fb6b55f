"""Conversations of a user's own files: what is asked, what is learned, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.tasks.own_data import own_file
from tests.trainables.tasks.own_data.own_file import chats, write_csv, write_jsonl
from trainables.errors import InputError
from trainables.tasks.registry import make_task
from trainables.tasks.task import SPLITS, Task, Turn

SPLIT = {"selection": 0.2, "report": 0.2}
SYSTEM, ASKED = {"role": "system", "content": "Be short."}, {"role": "user", "content": "why?"}
SAID = {"role": "assistant", "content": "because"}


def _task(folder: Path, rows: list[Any], **options: Any) -> Task:
    file = write_jsonl(folder / "a.jsonl", [{"messages": messages} for messages in rows])
    return make_task("chat", {"train": str(file), "asked": "train", **options})


def test_the_last_turn_is_asked_after_all_earlier_ones(tmp_path: Path) -> None:
    more = {"role": "user", "content": "And {then}?"}
    last = {"role": "assistant", "content": "so\nbe it"}
    task = _task(tmp_path, [[SYSTEM, ASKED, SAID, more, last]])
    [example] = task.load("train")
    prompt = task.prompt(example)
    assert prompt.text == "And {then}?" and task.target(example) == "so\nbe it"
    assert prompt.turns == tuple(
        Turn(each["role"], each["content"]) for each in (SYSTEM, ASKED, SAID)
    )
    assert task.stop is None and prompt.cuts == ()
    asked = "System: Be short.\nUser: why?\nAssistant: because\nUser: And {then}?"
    assert example.record["question"] == asked
    assert task.aggregate([task.score(example, "so\nbe it")])["exact_match"] == 1


def test_the_loss_may_be_on_every_turn_of_the_assistant(tmp_path: Path) -> None:
    rows = [[SYSTEM, ASKED, SAID, ASKED, SAID]]
    last, every = (_task(tmp_path, rows, loss_on=loss_on) for loss_on in ("last", "all"))
    learned = [turn.is_learned for turn in every.prompt(every.load("train")[0]).turns or ()]
    assert learned == [False, False, True]
    assert not any(turn.is_learned for turn in last.prompt(last.load("train")[0]).turns or ())
    assert last.version != every.version
    assert last.version == _task(tmp_path, rows).version
    with pytest.raises(InputError, match=r"data\.loss_on: got 'al'.* Did you mean 'all'"):
        _task(tmp_path, rows, loss_on="al")


def test_a_greeting_that_follows_nothing_is_not_learned(tmp_path: Path) -> None:
    task = _task(tmp_path, [[SAID, ASKED, SAID, ASKED, SAID]], loss_on="all")
    turns = task.prompt(task.load("train")[0]).turns or ()
    assert [turn.is_learned for turn in turns] == [False, False, True]


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_conversations_are_the_same_in_every_format(kind: str, tmp_path: Path) -> None:
    lines = make_task("chat", own_file.chat(tmp_path))
    file = tmp_path / f"chats.{kind}"
    if kind == "json":
        file.write_text(json.dumps([{"messages": each} for each in chats()], indent=1))
    elif kind == "csv":
        write_csv(file, [[json.dumps(each)] for each in chats()], columns=["messages"])
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"messages": chats()}), file)
    other = make_task("chat", {**own_file.chat(tmp_path), "file": str(file)})
    for split in SPLITS:
        texts = [_text(lines, example) for example in lines.load(split)]
        assert texts == [_text(other, example) for example in other.load(split)] != []


def _text(task: Task, example: Any) -> Any:
    return task.prompt(example), task.target(example)


def test_questions_with_answers_are_conversations_of_one_turn(tmp_path: Path) -> None:
    rows = [(f"Do {at}.", f"with {at}", "done") for at in range(20)]
    file = write_csv(tmp_path / "a.csv", rows, columns=("instruction", "input", "output"))
    task = make_task("chat", {"file": str(file), "split": SPLIT})
    prompt = task.prompt(task.load("train")[0])
    assert prompt.turns == () and prompt.text.startswith("Do ") and "\nwith " in prompt.text


def test_a_prompt_writes_the_last_message(tmp_path: Path) -> None:
    task = _task(tmp_path, [[SYSTEM, ASKED, SAID]], prompt="Say {input} {{now}}")
    assert task.prompt(task.load("train")[0]).text == "Say why? {now}"
    for shown in ("messages", "target"):
        with pytest.raises(InputError, match=rf"space\.prompt: \{{{shown}\}} shows the answer"):
            _task(tmp_path, [[ASKED, SAID]], prompt=f"{{{shown}}}").load("train")


def test_columns_that_would_replace_the_messages_are_refused(tmp_path: Path) -> None:
    columns = {"input": "messages", "target": "messages"}
    with pytest.raises(InputError, match=r"data\.columns: input and target would replace"):
        _task(tmp_path, [[ASKED, SAID]], columns=columns).load("train")


def test_a_misspelt_option_names_those_of_the_task(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'loss_on'"):
        _task(tmp_path, [[ASKED, SAID]], loss_no="all")


def test_an_earlier_turn_changes_the_digest(tmp_path: Path) -> None:
    rows = [[ASKED, SAID, ASKED, SAID], [ASKED, {**SAID, "content": "so"}, ASKED, SAID]]
    one, other = (_task(tmp_path, [row]).data_digest("train") for row in rows)
    assert one != other
    text = {"role": "user", "content": "User: why?\nAssistant: because\nUser: why?"}
    assert _task(tmp_path, [[text, SAID]]).data_digest("train") not in (one, other)


def test_another_column_of_messages_is_named(tmp_path: Path) -> None:
    rows = [{"dialog": each, "messages": "no"} for each in chats()]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    options = {"file": str(file), "split": SPLIT, "columns": {"messages": "dialog"}}
    assert len(make_task("chat", options).load("train")) == 24
    with pytest.raises(InputError, match=r"a\.jsonl:1: 'messages' holds 'no'; needs a list of mes"):
        make_task("chat", {**options, "columns": {}}).load("train")
    with pytest.raises(InputError, match=r"a\.jsonl:1: no column 'dialogue'; there are dialog, me"):
        make_task("chat", {**options, "columns": {"messages": "dialogue"}}).load("train")
    with pytest.raises(InputError, match=r"data\.columns\.messages: unknown key"):
        make_task("completion", options)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "'messages' holds []; needs a list of messages"),
        ("hello", "'messages' holds 'hello'; needs a list"),
        ([ASKED, "because"], "messages[1] holds 'because'; needs an object with a role and a cont"),
        (
            [ASKED, {"role": "assistant"}],
            "messages[1] holds {'role': 'assistant'}; needs an object",
        ),
        ([{**ASKED, "role": "usr"}, SAID], "messages[0] has the role 'usr'. Did you mean 'user'?"),
        ([{**ASKED, "content": " \n"}, SAID], "messages[0] of the user is empty"),
        ([{**ASKED, "content": ["why?"]}, SAID], "messages[0] has the content ['why?']; needs a t"),
        ([SYSTEM, ASKED], "messages has no turn of the assistant"),
        ([ASKED, SAID, ASKED], "messages ends with a turn of the user"),
        ([SAID], "messages has no user's turn right before the assistant's last one"),
        ([ASKED, SYSTEM, SAID], "messages has no user's turn right before"),
        ([ASKED, SYSTEM, ASKED, SAID], "messages has a system's message that is not the first one"),
    ],
)
def test_what_can_not_be_learned_from_is_refused_with_its_line(
    messages: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as told:
        _task(tmp_path, [[ASKED, SAID], messages]).load("train")
    [fault] = told.value.messages
    assert fault.startswith(f"{tmp_path}/a.jsonl:2: {message}")


def test_gold_files_of_conversations_are_read_for_scoring(tmp_path: Path) -> None:
    options = own_file.chat(tmp_path)
    task = make_task("chat", options)
    gold = {each.id: each for each in task.read_gold(options["file"])}
    for example in task.load("report"):
        assert gold[example.id].record["target"] == task.target(example)
