"""Completion and classification: columns, prompts as text, labels, verbalizers, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainables.tasks.own_data import own_file
from tests.trainables.tasks.own_data.own_file import sentences, write_csv
from trainables.errors import InputError
from trainables.tasks.own_data.classification import answered_label
from trainables.tasks.registry import find_task, make_task, task_metrics
from trainables.tasks.task import Task

SPLIT = {"selection": 0.2, "report": 0.2}


def _task(kind: str, folder: Path, header: tuple[str, ...], rows: Any, **options: Any) -> Task:
    file = write_csv(folder / "a.csv", rows, columns=header)
    return make_task(kind, {"file": str(file), "split": SPLIT, **options})


def test_a_prompt_shows_any_column_and_braces_may_stay(tmp_path: Path) -> None:
    rows = [(f"sentence {at}", "yes", f"firm {at}") for at in range(20)]
    prompt = 'From {company}: "{input}" as {{"a": 1}}\nAnswer: '
    task = _task("completion", tmp_path, ("text", "label", "company"), rows, prompt=prompt)
    example = task.load("train")[0]
    number = example.record["question"].split()[1]
    filled = task.prompt(example)
    assert filled.text == f'From firm {number}: "sentence {number}" as {{"a": 1}}\nAnswer: '
    assert filled.joint == "" and task.target(example) == "yes"


def test_an_instruction_is_followed_by_its_input(tmp_path: Path) -> None:
    rows = [(f"Do {at}.", "" if at % 2 else "with this", "done") for at in range(20)]
    task = _task("completion", tmp_path, ("instruction", "input", "output"), rows)
    texts = {task.prompt(each).text for each in task.load("train")}
    assert any(text.endswith("\nwith this") for text in texts)
    assert any(text.endswith(".") for text in texts)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{sentense}:", r"space\.prompt: no column 'sentense'; .* Did you mean 'sentence'"),
        ("Say it:", r"neither a named prompt \(default\) nor a file nor a text with"),
        ("{{sentence}}:", r"shows no column"),
    ],
)
def test_a_prompt_that_shows_nothing_is_refused(prompt: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_task("classification", {**own_file.classification(tmp_path), "prompt": prompt}).load(
            "train"
        )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), ("b", "")], r"a\.csv:3: 'label' is empty"),
        ([("", "x"), ("b", "y")], r"a\.csv:2: 'sentence' is empty"),
    ],
)
def test_an_empty_value_is_refused(rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        _task("classification", tmp_path, ("sentence", "label"), rows).load("train")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_label_that_is_no_number_is_refused_as_an_empty_one(number: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "a", "label": 1}}\n{{"text": "b", "label": {number}}}\n')
    with pytest.raises(InputError, match=rf"a\.jsonl:2: 'label' is empty \({number}\)\. Fill it"):
        make_task("classification", {"file": str(file), "split": SPLIT}).load("train")


def test_values_of_another_kind_are_refused_with_both_places(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "two"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: 'label' holds text .*a\.jsonl:1 a number"):
        make_task("classification", {"file": str(file), "split": SPLIT}).load("train")


def test_columns_of_no_usual_name_have_to_be_named(tmp_path: Path) -> None:
    rows = [(f"s {at}", "x" if at % 2 else "y") for at in range(20)]
    with pytest.raises(InputError, match=r"data\.columns\.input and data\.columns\.target: missin"):
        _task("classification", tmp_path, ("satz", "klasse"), rows).load("train")
    columns = {"input": "satz", "target": "klasse"}
    task = _task("classification", tmp_path, ("satz", "klasse"), rows, columns=columns)
    assert task.load("train")[0].record["question"].startswith("s ")


def test_an_answer_of_several_lines_needs_a_stop(tmp_path: Path) -> None:
    rows = [(f"q {at}", "one\ntwo") for at in range(20)]
    task = _task("completion", tmp_path, ("prompt", "completion"), rows, stop="###")
    assert task.stop == task.target_end == "###"
    assert task.score(task.load("train")[0], "one\ntwo")["exact_match"]
    ends = _task("completion", tmp_path, ("prompt", "completion"), rows, stop=None)
    assert ends.stop is None and ends.target_end == ""


def test_labels_are_those_of_the_training_rows_or_as_given(tmp_path: Path) -> None:
    task = make_task("classification", own_file.classification(tmp_path))
    assert task.choices(task.load("train")[0]) == ("negative", "neutral", "positive")
    given = {"positive": ["up", "bullish"], "negative": ["down"], "neutral": ["flat"]}
    worded = make_task("classification", {**own_file.classification(tmp_path), "labels": given})
    example = worded.load("train")[0]
    assert worded.target(example) == given[str(worded.gold(example))][0]
    assert "up, down, flat" in worded.prompt(example).text
    assert worded.version != task.version


def test_a_label_that_train_has_not_is_refused_with_its_line(tmp_path: Path) -> None:
    train, other = sentences(12), [("One more.", "mixed"), ("Another.", "positive")]
    files = {"train": train, "selection": other, "report": sentences(30)[20:]}
    options = {name: str(write_csv(tmp_path / f"{name}.csv", rows)) for name, rows in files.items()}
    with pytest.raises(InputError, match=r"selection\.csv:2: the label 'mixed' is none of negativ"):
        make_task("classification", options).load("report")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["only"], "needs two labels"),
        ({"a": ["x"], "b": ["X"]}, "'X' is written for a and for b"),
        ({"a": [], "b": ["x"]}, r"data\.labels\.a: nothing is written"),
        ("positive", r"data\.labels: got 'positive'; needs a list"),
    ],
)
def test_wrong_labels_are_refused(labels: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_task("classification", {**own_file.classification(tmp_path), "labels": labels})


@pytest.mark.parametrize(
    ("completion", "label"),
    [
        ("positive", "positive"),
        (' "Positive." because it rose', "positive"),
        ("Bullish, I think", "positive"),
        ("- very negative indeed", "very negative"),
        ("negatively", ""),
        ("It is positive", ""),
        ("", ""),
    ],
)
def test_the_first_words_of_an_answer_name_its_label(completion: str, label: str) -> None:
    labels = {
        "positive": ("positive", "bullish"),
        "negative": ("negative",),
        "very negative": ("very negative",),
    }
    assert answered_label(completion, labels) == label


@pytest.mark.parametrize(
    "labels", [(-1, 0, 1), ("(a)", "(b)"), ("<=50K", ">50K"), (" pos", " neg"), ("C", "C++")]
)
def test_every_label_fed_back_is_right(labels: Any, tmp_path: Path) -> None:
    rows = [(f"s {at}", str(labels[at % len(labels)])) for at in range(40)]
    task = _task("classification", tmp_path, ("sentence", "label"), rows)
    for example in task.load("train"):
        scores = task.score(example, task.target(example).strip())
        assert task.aggregate([scores])["accuracy"] == 1


def test_labels_that_no_answer_could_tell_apart_are_refused(tmp_path: Path) -> None:
    rows = [(f"s {at}", ("pos", "Pos", "neg")[at % 3]) for at in range(40)]
    with pytest.raises(InputError, match=r"a\.csv:\d+: the label .*, at .*differ in case only"):
        _task("classification", tmp_path, ("sentence", "label"), rows).load("train")
    task = _task("classification", tmp_path, ("sentence", "label"), rows, labels=["pos", "neg"])
    assert {task.gold(each) for each in task.load("train")} == {"pos", "neg"}


def test_the_data_are_the_same_in_a_file_of_another_name_and_not_in_another_order(
    tmp_path: Path,
) -> None:
    def digest(name: str, rows: Any, **options: Any) -> str:
        file = write_csv(tmp_path / name, rows, columns=("sentence", "label", "firm"))
        given = {"train": str(file), "asked": "train", **options}
        return make_task("completion", given).data_digest("train")

    rows = [(text, label, str(at % 3)) for at, (text, label) in enumerate(sentences(9))]
    found = digest("a.csv", rows)
    assert digest("b.csv", rows) == found and digest("a.csv", rows[::-1]) != found
    others = [(*row[:2], "x") for row in rows]
    assert digest("a.csv", others) == found
    shown = {"prompt": "{firm}: {sentence}"}
    assert digest("a.csv", others, **shown) != digest("a.csv", rows, **shown)


def test_a_single_label_is_refused_unless_others_are_named(tmp_path: Path) -> None:
    rows = [(f"s {at}", "pos") for at in range(40)]
    with pytest.raises(InputError, match=r"a\.csv:\d+: 'pos' is the label of every training row"):
        _task("classification", tmp_path, ("sentence", "label"), rows).load("train")
    task = _task("classification", tmp_path, ("sentence", "label"), rows, labels=["pos", "neg"])
    assert {task.gold(each) for each in task.load("train")} == {"pos"}


def test_a_prompt_that_shows_the_answer_is_refused(tmp_path: Path) -> None:
    options = {**own_file.classification(tmp_path), "prompt": "{sentence} is {label}:"}
    with pytest.raises(InputError, match=r"space\.prompt: \{label\} shows the answer"):
        make_task("classification", options).load("train")


def test_a_row_without_a_column_of_the_prompt_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    whole = [f'{{"text": "a {at}", "label": "x", "firm": "f"}}\n' for at in range(20)]
    file.write_text("".join([*whole, '{"text": "b", "label": "x"}\n']))
    options = {"file": str(file), "split": SPLIT, "prompt": "{firm}: {text}"}
    with pytest.raises(InputError, match=r"a\.jsonl:21: no column 'firm', which the prompt shows"):
        make_task("completion", options).load("train")


def test_a_missing_column_is_told_once_for_a_file(tmp_path: Path) -> None:
    rows = {"train": sentences(20), "selection": sentences(30)[20:], "report": sentences(40)[30:]}
    options = {name: str(write_csv(tmp_path / f"{name}.csv", rows[name])) for name in rows}
    named = {**options, "columns": {"input": "sentence", "target": "lable"}}
    with pytest.raises(InputError) as error:
        make_task("classification", named).load("train")
    assert list(error.value.messages) == [
        f"{options[split]}:2: no column 'lable'; there are sentence, label. Did you mean 'label'?"
        for split in ("train", "selection", "report")
    ]
    file = tmp_path / "a.jsonl"
    some = [f'{{"text": "a {at}", "label": "x"}}\n' for at in range(9)]
    file.write_text("".join([*some, '{"text": "b"}\n' * 3]))
    with pytest.raises(
        InputError, match=r"^.*a\.jsonl:10: no column 'label'; .* 3 of 12 rows lack"
    ):
        make_task("completion", {"file": str(file), "split": SPLIT}).load("train")
    with pytest.raises(InputError, match=r"a\.jsonl:10: no column 'label'"):
        find_task("completion").read_gold(file)


def test_faults_of_the_prompt_and_of_rows_are_told_together(tmp_path: Path) -> None:
    rows = [(f"s {at}", "" if at == 3 else "x") for at in range(20)]
    with pytest.raises(InputError) as error:
        _task("completion", tmp_path, ("text", "label"), rows, prompt="{txt}").load("train")
    prompt, row = error.value.messages
    assert prompt.startswith("space.prompt: no column 'txt'") and "a.csv:5: 'label' is e" in row


def test_a_file_without_rows_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.csv: the file holds no rows"):
        _task("completion", tmp_path, ("text", "label"), []).load("train")


def test_metrics_are_chosen_by_name_and_the_first_ranks(tmp_path: Path) -> None:
    options = {**own_file.classification(tmp_path), "metrics": ["macro_f1", "accuracy"]}
    metrics = task_metrics("classification", options)
    assert [metric.name for metric in metrics.specs] == ["macro_f1", "accuracy"]
    assert make_task("classification", options).used_metrics == metrics
    with pytest.raises(InputError, match=r"data\.metrics: no metric named 'f1_macro'.* 'macro_f1'"):
        make_task("classification", {**options, "metrics": ["f1_macro"]})
    with pytest.raises(InputError, match=r"data\.metrics: got \[\]; needs a list"):
        make_task("classification", {**options, "metrics": []})


def test_always_the_commonest_label_is_the_guess_to_beat(tmp_path: Path) -> None:
    rows = [(f"s {at}", "x" if at % 4 else "y") for at in range(40)]
    task = _task("classification", tmp_path, ("sentence", "label"), rows)
    report = task.load("report")
    share = sum(task.gold(each) == "x" for each in report) / len(report)
    assert task.trivial_baselines(report) == {"always x": pytest.approx(share)}
