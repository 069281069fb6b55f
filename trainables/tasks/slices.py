"""Slices of questions: by which properties of a question errors may be counted apart.

A value is a word, which is a slice, or a number, whose quartiles over the compared questions are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Slices = dict[str, str | float]

NOT_IN_PROMPT = "not in the prompt"
_PLACES = ("first third", "middle third", "last third")
_FIGURE = re.compile(r"\d[\d,.]*")
_WORD = re.compile(r"[^\W\d_]+")


def of_text(text: str) -> Slices:
    """`length`, in words; `figures`: how many numbers are written in digits."""
    return {"length": float(len(text.split())), "figures": float(len(_FIGURE.findall(text)))}


def of_question(prompt: str, record: Mapping[str, Any], gold: str, *, is_label: bool) -> Slices:
    """Of any question: its `label`, or else the `fact_position` of the gold answer in the prompt;
    its `agreement`, if the record has one; and `of_text` of the prompt, if the record has no
    `question` of which a reader could tell it."""
    about = {"label": gold} if is_label else {"fact_position": position(prompt, [gold])}
    agreement = record.get("agreement", _columns(record).get("agreement"))
    agreed = {} if agreement is None else {"agreement": str(agreement)}
    return {**about, **agreed, **({} if "question" in record else of_text(prompt))}


def position(text: str, facts: Sequence[str]) -> str:
    """The third of a text with the middle of the first of the facts that stands in it, as it is
    written and between other words."""
    for fact in filter(str.strip, facts):
        found = re.search(rf"(?<![\w.,]){re.escape(fact.strip())}(?!\w|[.,]\d)", text)
        if found:
            return _PLACES[3 * (found.start() + found.end()) // (2 * len(text) + 1)]
    return NOT_IN_PROMPT


def rare_shares(texts: Sequence[str], *, rare_share: float = 0.01) -> list[float]:
    """The share of each text's words that at most `rare_share` of the texts have, or one of them.

    Words are runs of letters, in any case; a text without one has none that is rare.
    """
    words = [_WORD.findall(text.lower()) for text in texts]
    counts: dict[str, int] = {}
    for each in words:
        for word in set(each):
            counts[word] = counts.get(word, 0) + 1
    most = max(1, int(rare_share * len(texts)))
    return [
        round(sum(counts[word] <= most for word in each) / len(each), 4) if each else 0.0
        for each in words
    ]


def _columns(record: Mapping[str, Any]) -> Mapping[str, Any]:
    found = record.get("columns")
    return found if isinstance(found, Mapping) else {}
