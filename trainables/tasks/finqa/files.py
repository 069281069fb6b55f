"""Reads FinQA's files: the official JSON list, or flat records one a line; gzip or not.

The form follows from the content of a file, not from its name. Every error names the line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import InputError
from trainables.spec.checks import is_finite
from trainables.tasks.exact_match import WORDS
from trainables.tasks.prompts.templates import CONTEXTS
from trainables.tasks.records import half_character_faults, read_lines

EVIDENCE_KINDS = ("gold", "retrieved", "gold+retrieved")
_ASKED = ("question", "program", "exe_ans")  # under "qa" in an official record
_MOST_FAULTS = 10  # shown for one file
_DOWNLOAD_HINT = " `python -m trainables.tasks.download finqa` fetches the official files."


@dataclass(frozen=True)
class Record:
    """One question in flat form, and the "file:line" where it begins.

    `fields`: id, question, pre_text, table, post_text, evidence, exe_ans (a float, "yes" or "no"),
    program ("" if there is none), ctx (one of CONTEXTS: what the file has of the page), ev (one of
    EVIDENCE_KINDS, or "none"). `kind` is the sort of question, "" if the file does not say it; no
    result depends on it.
    """

    where: str
    fields: Mapping[str, Any]
    kind: str = ""


def read_records(path: str | Path) -> list[Record]:
    """All records of a file. Raises InputError with all faults and their lines."""
    return _read(path, checks=_CHECKS)


def read_gold(path: str | Path) -> dict[str, float | str]:
    """`exe_ans` by id; the records need no other fields. Raises InputError."""
    records = _read(path, checks={name: _CHECKS[name] for name in ("id", "exe_ans")})
    return {record.fields["id"]: record.fields["exe_ans"] for record in records}


def record_from(value: Mapping[str, Any], *, where: str) -> Record:
    """One record in official or flat form. Raises InputError with all its faults."""
    fields = _flat(value)
    faults = _record_faults(fields, where=where, checks=_CHECKS)
    if faults:
        raise InputError(faults)
    return Record(where, _typed(fields), _question_kind(value))


def _read(path: str | Path, *, checks: Mapping[str, _Check]) -> list[Record]:
    records: list[Record] = []
    faults: list[str] = []
    first_at: dict[str, str] = {}
    for line, value in read_lines(path, hint=_DOWNLOAD_HINT):
        where = f"{path}:{line}"
        if not isinstance(value, dict):
            faults.append(f"{where}: a record must be an object, not {_kind(value)}.")
            continue
        fields = _flat(value)
        found = _record_faults(fields, where=where, checks=checks)
        found += half_character_faults({name: fields.get(name) for name in checks}, where=where)
        if not found and fields["id"] in first_at:
            found = [f"{where}: the id {fields['id']!r} is also at {first_at[fields['id']]}."]
        faults += found
        if not found:
            first_at[fields["id"]] = where
            records.append(Record(where, _typed(fields), _question_kind(value)))
    if faults:
        raise InputError(_few(faults, path))
    return records


def _few(faults: Sequence[str], path: str | Path) -> list[str]:
    more = len(faults) - _MOST_FAULTS
    return [*faults[:_MOST_FAULTS], *([f"{path}: and {more} more faults."] if more > 0 else [])]


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """A record in flat form, unchecked: an official one keeps its question under "qa"."""
    questions = value.get("qa")
    if not isinstance(questions, dict):
        page = value.get("pre_text") or value.get("post_text")
        defaults: dict[str, Any] = {"program": "", "evidence": [], "ev": "none"}
        return {**defaults, "ctx": "full" if page else "evidence", **_without_null(value)}
    facts = questions.get("gold_inds") or {}
    evidence = list(facts.values()) if isinstance(facts, dict) else facts
    return {
        "program": "",
        **_without_null(value),
        **_without_null({name: questions.get(name) for name in _ASKED}),
        "evidence": evidence,
        "ctx": "full",
        "ev": "gold" if evidence else "none",
    }


def _question_kind(value: Mapping[str, Any]) -> str:
    questions = value.get("qa")
    kind = questions.get("kind") if isinstance(questions, dict) else value.get("kind")
    return kind if isinstance(kind, str) else ""


def _without_null(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: field for name, field in value.items() if field is not None}


def _typed(fields: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: fields[name] for name in _CHECKS if name in fields}
    exe_ans = kept["exe_ans"]
    return {**kept, "exe_ans": exe_ans if isinstance(exe_ans, str) else float(exe_ans)}


_Check = tuple[Callable[[Any], bool], str]


def _record_faults(
    fields: Mapping[str, Any], *, where: str, checks: Mapping[str, _Check]
) -> list[str]:
    faults = []
    for name, (is_right, allowed) in checks.items():
        if name not in fields:
            faults.append(f"{where}: the field {name!r} is missing; it must be {allowed}.")
        elif not is_right(fields[name]):
            given = json.dumps(fields[name])[:60]
            faults.append(f"{where}: {name} is {given}; it must be {allowed}.")
    if not faults and fields.get("evidence") and fields.get("ev") == "none":
        faults.append(f"{where}: ev is missing; it must say whose evidence it is: {_KINDS}.")
    return faults


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(_are_texts(row) for row in value)


def _is_answer(value: Any) -> bool:
    if isinstance(value, str):
        return value in WORDS
    return is_finite(value)


_KINDS = ", ".join(EVIDENCE_KINDS)
_TEXTS = "a list of strings"
_CHECKS: dict[str, _Check] = {
    "id": (_is_text, "a string that is not empty"),
    "question": (_is_text, "a string that is not empty"),
    "exe_ans": (_is_answer, 'a finite number, "yes" or "no"'),
    "pre_text": (_are_texts, _TEXTS),
    "table": (_is_table, "a list of rows, each a list of strings"),
    "post_text": (_are_texts, _TEXTS),
    "evidence": (_are_texts, _TEXTS),
    "program": (lambda value: isinstance(value, str), "a string"),
    "ctx": (lambda value: value in CONTEXTS, f"one of {', '.join(CONTEXTS)}"),
    "ev": (lambda value: value in (*EVIDENCE_KINDS, "none"), f"one of {_KINDS}"),
}
