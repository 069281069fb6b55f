"""TAT-QA's rule: its official exact match and numeracy-focused F1 (Zhu et al., ACL 2021).

An answer is a list of items and one scale for all of them. The items become one string: sorted,
numbers rounded to 2 decimals, multiplied by the scale and printed with 4; the strings are
normalised and compared. The rule is that of tatqa_metric.py and tatqa_utils.py of
NExTplusplus/TAT-QA at commit 870accc41953dcde885aabeb963d94aabdc0fbc3, with its peculiarities, so
that results can be compared with published ones. Where those scripts fail, at a number beyond a
float's range, the number is compared as text.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from trainables.spec.metric import MetricSpec

RULE_VERSION = "1"
SCALES = ("thousand", "million", "billion", "percent")
SEPARATOR = "|"  # between the items of an answer; no official answer holds one
F1 = MetricSpec("f1", "F1", format=".1%", per_question_key="f1", in_headline=False)

_FACTORS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "percent": 0.01}
_DROPPED_IN_NUMBERS = str.maketrans("", "", "'\"\\$€£¥%(),[]")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FIRST_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)|[+-]?\.\d+")
_NUMBER_AND_WORD = re.compile(r"[\d.]\s?[a-zA-Z]+")
_IN_BRACKETS = re.compile(r"\([\d.\s]+\)")
_IN_PERCENT = re.compile(r"[\d.\s]%")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_LARGEST = 1e280  # a larger number is text: times a scale it could exceed a float's range


@dataclass(frozen=True)
class Answer:
    """What a question is answered with; `scale` is one of SCALES, or empty."""

    items: tuple[str, ...]
    scale: str = ""

    @property
    def text(self) -> str:
        """The answer as a model writes it: `12.5 percent`, `2019 | 2018`, `$1,496.5 million`."""
        return f"{f' {SEPARATOR} '.join(self.items)} {self.scale}".strip()


def parse(text: str) -> list[Answer]:
    """The possible readings of a line of text, with its items between "|".

    A last word that is one of SCALES belongs to its item or is the scale of all items: the official
    files have both ("$0.5 million", and "1,496.5" of scale million).
    """
    items = tuple(item.strip() for item in text.split(SEPARATOR))
    *others, last = items
    kept, _, word = last.rpartition(" ")
    scale = word.lower().rstrip(".")
    if scale not in SCALES or not kept.strip():
        return [Answer(items)]
    return [Answer(items), Answer((*others, kept.strip()), scale)]


@dataclass(frozen=True)
class Score:
    """The score of one question; `f1` is in [0, 1], with 2 decimals.

    `em_acc` is the official exact match. `em_acc_strict` does not accept a bare number without the
    scale (0.2342 for 23.42 percent).
    """

    em_acc: bool
    em_acc_strict: bool
    f1: float
    numeric: bool  # the gold was calculated or counted

    def flags(self) -> dict[str, float]:
        return asdict(self)


def score(predicted: Answer, gold: Answer, *, is_computed: bool) -> Score:
    """The official score; a prediction without any text is wrong.

    `is_computed`: the gold was calculated or counted; then F1 is the exact match.
    """
    if not any(predicted.items):
        return Score(em_acc=False, em_acc_strict=False, f1=0.0, numeric=is_computed)
    wanted = comparable(gold)
    exact, f1 = max(_compared(text, wanted) for text in _readings(predicted))
    strict, _ = _compared(comparable(predicted), wanted)
    f1 = float(exact) if is_computed else f1
    return Score(em_acc=exact, em_acc_strict=strict, f1=f1, numeric=is_computed)


def score_text(text: str, gold: Answer, *, is_computed: bool) -> Score:
    """The best score among the readings of the text (`parse`)."""
    scores = [score(each, gold, is_computed=is_computed) for each in parse(text)]
    return max(scores, key=lambda each: (each.em_acc, each.f1, each.em_acc_strict))


def rates(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over questions, from the `Score.flags()` of each.

    `em_acc_numeric` is over numeric golds, and absent without any; `no_marker_rate` is there if
    `no_marker` is. Raises ValueError without any score.
    """
    if not scores:
        raise ValueError("no questions were scored")
    means = {name: _mean(scores, name) for name in ("em_acc", "em_acc_strict", "f1")}
    numeric = [each for each in scores if each["numeric"]]
    if numeric:
        means["em_acc_numeric"] = _mean(numeric, "em_acc")
    if "no_marker" in scores[0]:
        means["no_marker_rate"] = _mean(scores, "no_marker")
    return means


def comparable(answer: Answer) -> str:
    """The string by which an answer is compared, not yet normalised."""
    return " ".join(_scaled(item, answer.scale) for item in sorted(answer.items))


def normalized(text: str) -> str:
    """The text in lower case without punctuation, articles and extra white space, and with each
    number as Python prints it."""
    words = (_normalized_word(word.lower()) for word in text.split(" "))
    return " ".join(word for word in words if word)


def is_number(text: str) -> bool:
    """Whether the text is a number, or begins with a number and a scale word."""
    words = " ".join(word.translate(_DROPPED_IN_NUMBERS) for word in text.split()).split()
    try:
        value = float(words[0]) if words else math.nan
    except ValueError:
        return False
    if math.isnan(value) or abs(float(_first_number(text) or 0)) > _LARGEST:
        return False
    return len(words) < 2 or _factor(words[1]) != 1


def to_number(text: str) -> float | None:
    """The first number of the text, with its scale word, brackets (negative) and % applied.

    None if there is none or it is too large to be one.
    """
    digits = _first_number(text)
    if digits is None or abs(float(digits)) > _LARGEST:
        return None
    number = float(digits) if "." in digits else int(digits)
    worded = _NUMBER_AND_WORD.search(text)
    factor = _factor(worded.group()) if worded else 1
    sign = -1 if _IN_BRACKETS.search(text.strip()) else 1
    percent = 0.01 if _IN_PERCENT.search(text.strip()) else 1
    return round(number * factor * sign * percent, 4)


def _first_number(text: str) -> str | None:
    found = _FIRST_NUMBER.search(text.translate(_DROPPED_IN_NUMBERS))
    return found.group(1) if found else None


def _mean(scores: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(each[name] for each in scores) / len(scores)


def _readings(answer: Answer) -> list[str]:
    """A bare number is also read without a scale: 0.2342 answers 23.42 percent."""
    only = answer.items[0]
    bare = len(answer.items) == 1 and not answer.scale and "%" not in only and is_number(only)
    number = to_number(only) if bare else None
    return [comparable(answer), *([] if number is None else [f"{number:.4f}"])]


def _compared(text: str, gold: str) -> tuple[bool, float]:
    return normalized(text) == normalized(gold), _f1_of_words(text, gold)


def _scaled(item: str, scale: str) -> str:
    number = to_number(item) if is_number(item) else None
    if number is None:
        return f"{item} {scale}" if scale else item
    if "%" in item:
        return f"{number:.4f}"
    return f"{round(number, 2) * _factor(scale):.4f}"


def _normalized_word(word: str) -> str:
    text = word if is_number(word) else word.translate(_PUNCTUATION)
    if is_number(text):
        text = str(to_number(text))
    return " ".join(_ARTICLE.sub(" ", text).split())


def _f1_of_words(predicted: str, gold: str) -> float:
    ours, theirs = set(normalized(predicted).split()), set(normalized(gold).split())
    shared = len(ours & theirs)
    precision = shared / len(ours) if ours else 1.0
    recall = shared / len(theirs) if theirs else 1.0
    if precision + recall == 0:
        return 0.0
    return round(2 * precision * recall / (precision + recall), 2)


def _factor(text: str) -> float:
    named = (factor for word, factor in _FACTORS.items() if word in text.lower())
    return next(named, 1)
