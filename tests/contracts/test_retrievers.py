"""The contract of every row of RETRIEVERS: what it finds, whatever the page and the question."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import numpy
import pytest

from trainables.spec.rows.task_knobs import RETRIEVERS as NAMES
from trainables.spec.rows.task_knobs import SCOPES
from trainables.tasks.retrieval.index import Index, Retrieval
from trainables.tasks.retrieval.retrievers import RETRIEVERS, terms
from trainables.tasks.retrieval.units import Page

PAGE: Page = (
    "the company sells bicycles in europe .",
    "the net sales of 2016 is $ 12 ; the net sales of 2015 is $ 10 ;",
    "the operating costs of 2016 is $ 8 ; the operating costs of 2015 is $ 7 ;",
    "the company sells bicycles in europe .",
    "die erlöse stiegen um 3 % ; Ünïcödé 売上高",
)
OTHER: Page = ("the net sales of 2014 is $ 9 ;", "see note 3 .")
QUESTION = "what were the operating costs in 2015?"


@pytest.fixture(params=NAMES)
def retriever(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def vectors(texts: Sequence[str]) -> Any:
    """In place of an encoder's: how often a text has each word, at a place that is its checksum."""
    counted = numpy.zeros((len(texts), 4096))
    for at, text in enumerate(texts):
        for word in terms(text):
            counted[at, zlib.crc32(word.encode()) % 4096] += 1
    return counted / numpy.maximum(numpy.linalg.norm(counted, axis=1, keepdims=True), 1e-9)


def index(retriever: str, scope: str, pages: tuple[Page, ...] = (OTHER, PAGE)) -> Index:
    return Index(Retrieval(retriever, 1, scope), pages, vectors)


def best(retriever: str, question: str, page: Page = PAGE, *, k: int = 2, scope: str) -> list[int]:
    pages = tuple(dict.fromkeys((OTHER, page)))
    return sorted(index(retriever, scope, pages).ranked(question, page, count=k))


def test_the_knob_names_the_rows() -> None:
    assert tuple(RETRIEVERS) == NAMES


@pytest.mark.parametrize("scope", SCOPES)
def test_the_unit_that_the_question_is_about_is_found(retriever: str, scope: str) -> None:
    found = index(retriever, scope)
    [place] = found.ranked(QUESTION, PAGE, count=1)
    assert found.texts(PAGE)[place] == PAGE[2]
    assert place - found.start(PAGE) == 2


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("k", [1, 3, 100])
@pytest.mark.parametrize(
    "question", [QUESTION, "what is the of in?", "?! ...", "", "売上高", "ERLÖSE"]
)
def test_k_units_at_most_and_fewer_are_the_first_of_more(
    retriever: str, scope: str, k: int, question: str
) -> None:
    found = index(retriever, scope)
    ranked = found.ranked(question, PAGE, count=k)
    assert len(ranked) == len(set(ranked)) == min(k, len(found.texts(PAGE)))
    assert ranked == found.ranked(question, PAGE, count=100)[:k]


@pytest.mark.parametrize("page", [(), ("",), ("...",), (".", "?")])
def test_a_page_without_words_is_no_error(retriever: str, page: Page) -> None:
    assert best(retriever, QUESTION, page, scope="page") == list(range(min(2, len(page))))
    assert len(best(retriever, QUESTION, page, scope="corpus")) == 2


def test_of_equal_units_the_first_is_taken(retriever: str) -> None:
    assert best(retriever, "bicycles in europe", k=1, scope="page") == [0]
    assert best(retriever, "売上高", k=1, scope="page") == [4]
    assert best(retriever, "erlöse", k=1, scope="page") == [4]


def test_a_page_is_searched_by_its_own_units_alone(retriever: str) -> None:
    alone = index(retriever, "page", (PAGE,)).ranked(QUESTION, PAGE, count=2)
    assert sorted(alone) == best(retriever, QUESTION, scope="page")


def test_a_question_of_another_process_finds_the_same(retriever: str) -> None:
    code = (
        "from tests.contracts.test_retrievers import best, QUESTION\n"
        f"print(best({retriever!r}, QUESTION, k=3, scope='corpus'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(best(retriever, QUESTION, k=3, scope="corpus"))
