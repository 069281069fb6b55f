"""Slices of a question: words, figures, rare words, and where its fact stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainables.tasks.finqa.test_task import official, write_list
from tests.trainables.tasks.tatqa.tatqa_file import options
from trainables.tasks.prompts.page_slices import evidence_source
from trainables.tasks.registry import make_task
from trainables.tasks.slices import NOT_IN_PROMPT, of_question, of_text, position, rare_shares


def test_words_and_figures_are_counted() -> None:
    assert of_text("sales rose 3.5% to 1,200.") == {"length": 5.0, "figures": 2.0}
    assert of_text("") == {"length": 0.0, "figures": 0.0}


@pytest.mark.parametrize(
    ("fact", "third"),
    [
        ("12", "first third"),
        ("forty", "middle third"),
        ("7", "last third"),
        ("1", NOT_IN_PROMPT),  # only inside of other numbers
        ("ort", NOT_IN_PROMPT),
        ("", NOT_IN_PROMPT),
    ],
)
def test_a_fact_stands_where_its_middle_is(fact: str, third: str) -> None:
    assert position("12 aa bb cc forty dd ee 1,100 ff 7", [fact]) == third


def test_the_first_fact_that_is_found_counts() -> None:
    assert position("a b c d e f", ["x", "f", "a"]) == "last third"


def test_a_word_is_rare_that_one_text_or_a_hundredth_of_them_have() -> None:
    assert rare_shares(["Sales rose", "sales fell", "sales fell 9", ""]) == [0.5, 0.0, 0.0, 0.0]
    many = ["often seldom"] * 2 + ["often"] * 198
    assert rare_shares(many)[0] == 0.5
    assert rare_shares(many[:150])[0] == 0.0


def test_a_label_has_no_place_and_an_agreement_is_told() -> None:
    record: dict[str, Any] = {"question": "x", "columns": {"agreement": 75}}
    told = of_question("up or down?", record, "up", is_label=True)
    assert told == {"label": "up", "agreement": "75"}
    assert of_question("a 7 b", {}, "7", is_label=False) == {
        "fact_position": "middle third", "length": 3.0, "figures": 1.0,
    }  # fmt: skip


def finqa(folder: Path, **changes: Any) -> dict[str, str | float]:
    names = {each: str(folder / f"{each}.json") for each in ("train", "selection", "report")}
    for name, file in names.items():
        write_list(Path(file), [official(f"{name}/page-1", **changes)])
    task = make_task("finqa", {**names, "context": "full"})
    return dict(task.slices(task.load("selection")[0]))


def test_finqa_tells_steps_and_where_its_evidence_is(tmp_path: Path) -> None:
    found = finqa(tmp_path)
    assert (found["evidence"], found["steps"]) == ("table", 1.0)
    assert found["fact_position"] == "last third"  # of this short page's prompt
    both = {"table_1": "the net sales of 2016 is $ 12 ;", "text_0": "acme reports ."}
    program = "subtract(12, 10), divide(#0, 10)"
    found = finqa(tmp_path, gold_inds=both, program=program)
    assert (found["evidence"], found["steps"]) == ("table-text", 2.0)


def test_evidence_without_a_page_is_from_nowhere() -> None:
    assert evidence_source({"pre_text": [], "post_text": [], "evidence": ["a"]}) == ""


def test_tatqa_tells_what_its_annotators_say(tmp_path: Path) -> None:
    task = make_task("tatqa", options(tmp_path))
    found = task.slices(task.load("selection")[0])
    assert found["evidence"] == "table-text" and "third" in str(found["fact_position"])
