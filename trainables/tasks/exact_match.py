"""EmAcc, version 1: the exact-match rule that answers are scored by. docs/emacc.md explains it.

The *span* of a prediction is read as a word (yes, no) or as its first number and compared with the
gold: a float, "yes" or "no". Only a gold that rounds to what was printed is a match.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from trainables.spec.metric import MetricSpec

RULE_VERSION = "1"
MARKER = "Answer:"
WORDS = ("yes", "no")
DECIMALS = 5  # FinQA rounds every executed program to this many

EM_ACC = MetricSpec(
    "em_acc", "EmAcc", format=".1%", per_question_key="em_acc", is_share_of_questions=True
)
EM_ACC_STRICT = MetricSpec(
    "em_acc_strict",
    "strict EmAcc",
    format=".1%",
    per_question_key="em_acc_strict",
    is_share_of_questions=True,
)
EM_ACC_NUMERIC = MetricSpec(
    "em_acc_numeric",
    "numeric EmAcc",
    format=".1%",
    per_question_key="em_acc",
    is_share_of_questions=True,
    among="numeric",
)

Gold = float | str

_LONGEST_TOKEN = 400  # characters, and powers of ten: above any float; only zeros could match
_WORD = re.compile(r"[\W_]*(yes|no)(?![^\W_])", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?P<open>\()? ?(?P<sign>[-\u2212])? ?\$? ?"
    r"(?P<digits>[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)?|(?<![A-Za-z0-9])\.[0-9]+)"
    r"(?P<exponent>[eE][-+\u2212]?[0-9]+)?"
    r"(?P<close> ?\))?(?P<percent> ?(?:%|percent))?(?P<late_close> ?\))?",
    re.IGNORECASE,
)
_WELL_FORMED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")


@dataclass(frozen=True)
class Number:
    """A number as it was printed: `printed` has its sign, but no commas and no percent sign."""

    printed: str
    percent: bool = False

    @property
    def value(self) -> float:
        """The value as FinQA's executor reads it; infinite if it exceeds a float's range."""
        return float(self.printed) / 100.0 if self.percent else float(self.printed)

    @property
    def unit_exponent(self) -> int:
        """One unit of the last printed digit is 10 to this power."""
        digits, _, exponent = self.printed.lower().partition("e")
        decimals = len(digits.partition(".")[2])
        return _bounded(exponent) - decimals - (2 if self.percent else 0)


@dataclass(frozen=True)
class Score:
    """The score of one question.

    `percent_scale`: wrong, but right with a percent sign (9.37 for 0.09371). `no_marker`: the
    marker was required and is missing. `parsed`: a word or a number was read. `numeric`: the gold
    is a number.
    """

    em_acc: bool
    em_acc_strict: bool
    no_marker: bool
    percent_scale: bool
    parsed: bool
    numeric: bool

    def flags(self) -> dict[str, bool]:
        return asdict(self)


def score(prediction: str | None, gold: Gold, marker_required: bool = False) -> Score:
    """Scores a prediction from outside: what follows its last marker, else its first line.

    With `marker_required` a prediction without a marker is wrong, and `no_marker` is true. Raises
    ValueError only for a gold that is neither a finite number nor "yes" nor "no".
    """
    span = prediction_span(prediction or "", marker_required=marker_required)
    return _score_span(span, gold)


def score_completion(completion: str, gold: Gold) -> Score:
    """Scores what a model wrote after a prompt of this project, whose reply is the marker."""
    return _score_span(completion_span(completion), gold)


def score_value(value: Gold | None, gold: Gold) -> Score:
    """Scores the result of a program, printed with 5 decimals; None: it can't be executed."""
    printed = value if value is None or isinstance(value, str) else f"{value:.{DECIMALS}f}"
    return _score_span(printed or "", gold)


def answer_text(gold: Gold) -> str:
    """The training target: up to 5 decimals, no trailing zeros, never "-0"; words as they are.

    It is right, also strictly, for any gold with at most 5 decimals.
    """
    if isinstance(gold, str):
        return gold
    text = f"{gold:.{DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def prediction_span(prediction: str, *, marker_required: bool = False) -> str | None:
    """What follows the last marker on its line, else the first line.

    None if the marker is required and missing.
    """
    _, marker, after = prediction.rpartition(MARKER)
    if marker:
        return _first_line(after)
    return None if marker_required else completion_span(prediction)


def completion_span(completion: str) -> str:
    """The first line after any leading white space."""
    return _first_line(completion.lstrip())


def parse(span: str) -> Number | str | None:
    """Reads a span: "yes" or "no", else its first number, else None. Never raises.

    None also for a number with malformed thousands commas ("1,23").
    """
    word = _WORD.match(span)
    if word:
        return word.group(1).lower()
    token = _NUMBER.search(" ".join(span.split()))
    return _number(token) if token else None


def meaning(span: str) -> str:
    """What `parse` reads, as a text that is the same for equal values; "" if it reads nothing."""
    found = parse(span)
    return repr(found.value + 0.0) if isinstance(found, Number) else found or ""


def rates(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Shares of questions, from the `Score.flags()` of each.

    `em_acc_numeric` is over numeric golds, and absent without any. Raises ValueError without any
    score.
    """
    if not scores:
        raise ValueError("no questions were scored")
    shares = {
        "em_acc": _share(scores, "em_acc"),
        "em_acc_strict": _share(scores, "em_acc_strict"),
        "no_marker_rate": _share(scores, "no_marker"),
        "percent_scale_rate": _share(scores, "percent_scale"),
        "unparsed_rate": 1.0 - _share(scores, "parsed"),
    }
    numeric = [each for each in scores if each["numeric"]]
    return {**shares, "em_acc_numeric": _share(numeric, "em_acc")} if numeric else shares


def _share(scores: Sequence[Mapping[str, float]], flag: str) -> float:
    return sum(each[flag] for each in scores) / len(scores)


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")


def _number(token: re.Match[str]) -> Number | None:
    digits = token["digits"]
    if "," in digits and not _WELL_FORMED.fullmatch(digits):
        return None
    enclosed = token["open"] and (token["close"] or token["late_close"])
    sign = "-" if token["sign"] or enclosed else ""
    exponent = (token["exponent"] or "").replace("\u2212", "-")
    return Number(f"{sign}{digits.replace(',', '')}{exponent}", percent=bool(token["percent"]))


def _score_span(span: str | None, gold: Gold) -> Score:
    numeric = _is_numeric(gold)
    answer = parse(span) if span is not None else None
    strict = _is_strict(answer, gold)
    right = strict or _rounds_to(answer, gold)
    return Score(
        em_acc=right,
        em_acc_strict=strict,
        no_marker=span is None,
        percent_scale=not right and _is_right_in_percent(answer, gold),
        parsed=answer is not None,
        numeric=numeric,
    )


def _is_numeric(gold: Gold) -> bool:
    if isinstance(gold, str):
        if gold not in WORDS:
            raise ValueError(f"the gold {gold!r} is neither a number nor one of {WORDS}")
        return False
    if not math.isfinite(gold):
        raise ValueError(f"the gold {gold!r} is not finite")
    return True


def _is_strict(answer: Number | str | None, gold: Gold) -> bool:
    if isinstance(answer, Number):
        return not isinstance(gold, str) and round(answer.value, DECIMALS) == gold
    return answer is not None and answer == gold


def _rounds_to(answer: Number | str | None, gold: Gold) -> bool:
    """Whether the gold rounds to the answer and differs by at most 1%, in exact arithmetic.

    The difference is at most half a unit of the last printed digit.
    """
    if not isinstance(answer, Number) or isinstance(gold, str):
        return False
    exponent = answer.unit_exponent
    if max(len(answer.printed), abs(exponent)) > _LONGEST_TOKEN:
        return False
    value = Fraction(answer.printed) / (100 if answer.percent else 1)
    wanted = Fraction(repr(float(gold)))
    distance = abs(value - wanted)
    return distance <= Fraction(10) ** exponent / 2 and distance <= abs(wanted) / 100


def _is_right_in_percent(answer: Number | str | None, gold: Gold) -> bool:
    if not isinstance(answer, Number) or answer.percent:
        return False
    hundredth = Number(answer.printed, percent=True)
    return _is_strict(hundredth, gold) or _rounds_to(hundredth, gold)


def _bounded(exponent: str) -> int:
    """The value of the exponent, limited because int() refuses more than 4300 digits."""
    digits = exponent.lstrip("+-").lstrip("0")
    size = int(digits) if 0 < len(digits) < 5 else 10**5 * bool(digits)
    return -size if exponent.startswith("-") else size
