"""Metrics of answers that are texts."""

from __future__ import annotations

import difflib
import re
from collections import Counter

from trainables.metrics.metric import Metric, Scores
from trainables.spec.metric import MetricSpec

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"\w+")
_RELATIVE_TOLERANCE = 1e-6


def exact_match(gold: str, answer: str) -> Scores:
    """Whether the texts are equal, but for white space at their ends."""
    return {"exact_match": answer.strip() == gold.strip()}


def numeric_match(gold: str, answer: str) -> Scores:
    """Whether the first numbers in both texts are equal to 1e-6; texts without one never match."""
    wanted, given = _number(gold), _number(answer)
    is_equal = (
        wanted is not None
        and given is not None
        and abs(wanted - given) <= _RELATIVE_TOLERANCE * max(1.0, abs(wanted))
    )
    return {"numeric_match": is_equal}


def token_f1(gold: str, answer: str) -> Scores:
    """The F1 of the words of both texts, as bags, in lower case (Rajpurkar et al., 2016, without
    the removal of articles)."""
    wanted, given = _words(gold), _words(answer)
    common = sum((Counter(wanted) & Counter(given)).values())
    return {"token_f1": _f1(common, len(wanted), len(given))}


def rouge_l(gold: str, answer: str) -> Scores:
    """The F1 of the longest common subsequence of words (Lin, 2004), in lower case."""
    wanted, given = _words(gold), _words(answer)
    return {"rouge_l": _f1(_longest_common(wanted, given), len(wanted), len(given))}


def similarity(gold: str, answer: str) -> Scores:
    """How alike the texts are, from 0 to 1 (difflib's ratio of matching characters)."""
    matcher = difflib.SequenceMatcher(None, gold.strip(), answer.strip(), autojunk=False)
    return {"similarity": matcher.ratio()}


def _number(text: str) -> float | None:
    found = _NUMBER.search(text)
    return float(found[0].replace(",", "")) if found else None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _f1(common: int, wanted: int, given: int) -> float:
    """2 * common / (wanted + given); two texts without words are alike."""
    return 2 * common / (wanted + given) if wanted + given else 1.0


def _longest_common(one: list[str], other: list[str]) -> int:
    lengths = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for at, each in enumerate(other, start=1):
            above = lengths[at]
            lengths[at] = diagonal + 1 if word == each else max(above, lengths[at - 1])
            diagonal = above
    return lengths[-1]


def _share(name: str, title: str) -> MetricSpec:
    return MetricSpec(name, title, format=".1%", per_question_key=name, is_share_of_questions=True)


def _mean(name: str, title: str) -> MetricSpec:
    return MetricSpec(name, title, format=".1%", per_question_key=name)


OF_TEXT: dict[str, Metric] = {
    "exact_match": Metric(_share("exact_match", "exact match"), exact_match),
    "numeric_match": Metric(_share("numeric_match", "numeric match"), numeric_match),
    "token_f1": Metric(_mean("token_f1", "token F1"), token_f1),
    "rouge_l": Metric(_mean("rouge_l", "ROUGE-L"), rouge_l),
    "similarity": Metric(_mean("similarity", "similarity"), similarity),
}
