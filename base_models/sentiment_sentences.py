"""Generated sentences like those of company news, with the sentiment that their words have."""

from __future__ import annotations

import random
from dataclasses import dataclass

LABELS = ("positive", "negative", "neutral")
_SYLLABLES = (
    "al",
    "bor",
    "cen",
    "dor",
    "el",
    "fin",
    "gar",
    "hel",
    "ko",
    "lum",
    "mar",
    "nor",
    "tek",
)
_SUFFIXES = ("Oyj", "Plc", "Group", "Corp.", "AB", "Inc", "Ltd", "SA")
_PLACES = ("Finland", "Sweden", "Germany", "Russia", "China", "Poland", "the Baltic countries")
_TIMES = (
    "in the first quarter",
    "in 2009",
    "in January-September",
    "for the nine-month period",
    "in the corresponding period",
    "from a year earlier",
    "today",
)
_MEASURES = (
    "net sales",
    "operating profit",
    "pretax profit",
    "net profit",
    "turnover",
    "earnings per share",
    "order intake",
    "market share",
    "revenue",
    "cash flow",
    "sales volumes",
    "the operating margin",
)
_GOODS = ("steel", "paper", "phones", "software", "beer", "cranes", "food", "lifts", "newspapers")
_RISE = ("rose", "increased", "grew", "climbed", "improved", "went up", "surged", "doubled")
_FALL = ("fell", "decreased", "declined", "dropped", "weakened", "went down", "slid", "halved")
_GOOD_NEWS = (
    "{company} has won an order worth EUR {x} mn for {goods} from a customer in {place} .",
    "{company} raised its outlook as demand for {goods} is stronger than expected .",
    "The agreement strengthens the position of {company} in {place} .",
    "{company} expects {measure} to improve clearly {time} .",
    "Shares of {company} jumped {p} % after its profit beat forecasts .",
    "{company} proposes a higher dividend of EUR {p} per share .",
    "{company} swung to a profit of EUR {x} mn from a loss of EUR {y} mn .",
)
_BAD_NEWS = (
    "{company} will lay off {n} employees at its {goods} plant in {place} .",
    "{company} lowered its outlook because of weak demand for {goods} .",
    "The loss of {company} widened to EUR {x} mn {time} .",
    "Shares of {company} plunged {p} % after a profit warning .",
    "{company} has to close its unit in {place} as orders are cancelled .",
    "{company} swung to a loss of EUR {x} mn from a profit of EUR {y} mn .",
    "Higher costs hurt the result of {company} {time} .",
)
_FACTS = (
    "{company} is headquartered in {place} and makes {goods} .",
    "{company} operates {n} stores in {place} .",
    "The value of the contract was not disclosed .",
    "{company} has appointed a new director for its {goods} business in {place} .",
    "The annual general meeting of {company} will be held {time} .",
    "A total of {n} shares of {company} can be subscribed for with options .",
    "{company} will publish its report {time} .",
    "{company} sold its {goods} unit to a buyer in {place} for EUR {x} mn .",
    "The plant in {place} will produce {n} tons of {goods} a year .",
    "{company} and its partner in {place} will use the same system for {goods} .",
)


@dataclass(frozen=True)
class Sentence:
    text: str
    label: str


def draw(rng: random.Random) -> Sentence:
    """A sentence with one of LABELS, each as likely."""
    label = rng.choice(LABELS)
    if label == "neutral":
        return Sentence(_filled(rng.choice(_FACTS), rng), label)
    is_good = label == "positive"
    form = rng.randrange(4)
    if form == 0:
        return Sentence(_filled(rng.choice(_GOOD_NEWS if is_good else _BAD_NEWS), rng), label)
    low, high = sorted(rng.sample(range(1, 900), 2))
    now, before = (high, low) if is_good else (low, high)
    measure, time = rng.choice(_MEASURES), rng.choice(_TIMES)
    of = rng.choice(("", f" of {_company(rng)}"))
    if form == 1:
        way = "up" if is_good else "down"
        text = f"{measure}{of} totalled EUR {now} mn , {way} from EUR {before} mn {time} ."
    elif form == 2:
        verb = rng.choice(_RISE if is_good else _FALL)
        text = f"{measure}{of} {verb} by {rng.randrange(1, 90)} % to EUR {now} mn {time} ."
    else:
        verb = rng.choice(_RISE if is_good else _FALL)
        text = f"{measure}{of} {verb} to EUR {now} mn from EUR {before} mn {time} ."
    return Sentence(text[0].upper() + text[1:], label)


def _filled(template: str, rng: random.Random) -> str:
    return template.format(
        company=_company(rng),
        place=rng.choice(_PLACES),
        goods=rng.choice(_GOODS),
        measure=rng.choice(_MEASURES),
        time=rng.choice(_TIMES),
        x=rng.randrange(1, 900),
        y=rng.randrange(1, 900),
        p=rng.randrange(1, 40),
        n=rng.randrange(2, 5000),
    )


def _company(rng: random.Random) -> str:
    name = "".join(rng.choice(_SYLLABLES) for _ in range(rng.randrange(2, 4))).capitalize()
    return f"{name} {rng.choice(_SUFFIXES)}"
