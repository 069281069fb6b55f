"""Reads TAT-QA's official files: contexts of one table, its paragraphs and their questions.

A file is a JSON list, gzip or not. Every error names the line at which its context begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.errors import InputError
from trainables.spec.checks import is_finite
from trainables.tasks.records import half_character_faults, read_lines
from trainables.tasks.task import Example
from trainables.tasks.tatqa.scoring import SCALES, Answer

ANSWER_TYPES = ("span", "multi-span", "arithmetic", "count")
_COMPUTED = ("arithmetic", "count")
_SOURCES = ("table", "text", "table-text")
_MOST_FAULTS = 10  # shown for one file
_MOST_DIGITS = 18  # of a count and of a paragraph's order
_DOWNLOAD_HINT = " `python -m trainables.tasks.download tatqa` fetches the official files."


def read_examples(path: str | Path) -> list[Example]:
    """All questions of a file, in its order; a group is a context, by its table's uid.

    A record holds question, pre_text (the paragraphs), table, post_text (empty), evidence (the
    paragraphs and the lines of the table that the answer is from), items (those of the gold answer,
    strings), scale, answer_type (one of ANSWER_TYPES, also the kind of the example), answer_from
    and derivation (how it is calculated). Raises InputError with all faults and their lines.
    """
    examples: list[Example] = []
    faults: list[str] = []
    first_at: dict[str, str] = {}
    for line, value in read_lines(path, hint=_DOWNLOAD_HINT):
        where = f"{path}:{line}"
        found = [f"{where}: {fault}" for fault in _context_faults(value)]
        found += half_character_faults(value, where=where)
        faults += found
        if found:
            continue
        for example in _examples(value):
            if example.id in first_at:
                faults.append(f"{where}: the uid {example.id!r} is also at {first_at[example.id]}.")
            first_at[example.id] = where
            examples.append(example)
    if not faults and not examples:
        faults = [f"{path}: the file holds no questions."]
    if faults:
        more = len(faults) - _MOST_FAULTS
        told = [f"{path}: and {more} more faults."] if more > 0 else []
        raise InputError([*faults[:_MOST_FAULTS], *told])
    return examples


def gold_of(example: Example) -> tuple[Answer, bool]:
    """The gold answer, and whether it was calculated or counted."""
    record = example.record
    return Answer(tuple(record["items"]), record["scale"]), record["answer_type"] in _COMPUTED


def _examples(context: Mapping[str, Any]) -> Iterator[Example]:
    table: list[list[str]] = context["table"]["table"]
    paragraphs = sorted(context["paragraphs"], key=lambda paragraph: int(paragraph["order"]))
    for asked in context["questions"]:
        record = {
            "question": asked["question"],
            "pre_text": [paragraph["text"] for paragraph in paragraphs],
            "table": table,
            "post_text": [],
            "evidence": list(_evidence(asked, table, paragraphs)),
            "items": _items(asked),
            "scale": asked["scale"],
            "answer_type": asked["answer_type"],
            "answer_from": asked["answer_from"],
            "derivation": str(asked.get("derivation") or ""),
        }
        group, kind = context["table"]["uid"], asked["answer_type"]
        yield Example(id=asked["uid"], record=record, group=group, kind=kind)


def _evidence(
    asked: Mapping[str, Any],
    table: Sequence[Sequence[str]],
    paragraphs: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """The paragraphs and, line by line, the table that the answer is from, by the annotators."""
    relevant = {str(order) for order in asked["rel_paragraphs"]}
    yield from (each["text"] for each in paragraphs if str(each["order"]) in relevant)
    if "table" in asked["answer_from"]:
        yield from (" | ".join(row) for row in table)


def _items(asked: Mapping[str, Any]) -> list[str]:
    """The items of the gold answer as the official script reads them."""
    answer = asked["answer"]
    if asked["answer_type"] == "count":
        return [str(int(answer))]
    return list(answer) if isinstance(answer, list) else [str(answer)]


def _context_faults(value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield "a context must be an object with table, paragraphs and questions."
        return
    if not _is_table(value.get("table")):
        yield "table must be an object with a uid and a table, a list of rows of strings."
    paragraphs = value.get("paragraphs")
    if not (isinstance(paragraphs, list) and all(map(_is_paragraph, paragraphs))):
        yield "paragraphs must be a list of objects with an order (a number) and a text."
    questions = value.get("questions")
    if not isinstance(questions, list):
        yield "questions must be a list."
        return
    for number, asked in enumerate(questions, start=1):
        yield from (f"question {number}: {fault}" for fault in _question_faults(asked))


def _question_faults(asked: Any) -> Iterator[str]:
    if not isinstance(asked, dict):
        yield "must be an object."
        return
    for name in ("uid", "question"):
        if not _is_text(asked.get(name)):
            yield f"{name} is {asked.get(name)!r}; it must be a string that is not empty."
    if "answer" not in asked:
        yield "the field 'answer' is missing; give a file with gold answers."
        return
    allowed = {
        "scale": ("", *SCALES),
        "answer_type": ANSWER_TYPES,
        "answer_from": _SOURCES,
    }
    wrong = [name for name, values in allowed.items() if asked.get(name) not in values]
    for name in wrong:
        choices = ", ".join(repr(choice) for choice in allowed[name])
        yield f"{name} is {asked.get(name)!r}; it must be one of {choices}."
    if not isinstance(asked.get("rel_paragraphs"), list):
        yield "rel_paragraphs must be a list."
    if not wrong and not _fits(asked["answer"], asked["answer_type"]):
        yield f"answer is {asked['answer']!r:.60}; it does not fit {asked['answer_type']}."


def _fits(answer: Any, answer_type: str) -> bool:
    if answer_type in ("span", "multi-span"):
        texts = isinstance(answer, list) and all(isinstance(item, str) for item in answer)
        return texts and any(item.strip() for item in answer)
    if answer_type == "count":
        return _is_count(answer)
    return is_finite(answer)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("uid")) and _is_grid(value.get("table"))


def _is_paragraph(value: Any) -> bool:
    is_object = isinstance(value, dict) and isinstance(value.get("text"), str)
    return is_object and _is_count(value.get("order"))


def _is_count(value: Any) -> bool:
    digits = str(value).strip()
    return digits.isdecimal() and len(digits) <= _MOST_DIGITS


def _is_grid(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and all(isinstance(cell, str) for cell in row) for row in value
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
