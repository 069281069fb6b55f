"""The places of the best units for all questions of a split, searched once on a node."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainables.tasks.retrieval.encoder import vectors_of
from trainables.tasks.retrieval.index import Index, Retrieval
from trainables.tasks.retrieval.node_arrays import node_array
from trainables.tasks.retrieval.retrievers import Vectors
from trainables.tasks.retrieval.units import Page

Asked = tuple[str, Page]
"""A question and its page."""
_DEPTH = 32  # places are kept in multiples of it, so that every k up to it reads one file
_NONE = -1  # fills the rows of questions with fewer units


def new_index(retrieval: Retrieval, asked: Sequence[Asked]) -> Index:
    """The index of the pages of a split's questions."""
    pages = tuple(dict.fromkeys(_pages(asked).values()))
    if retrieval.encoder is None:
        return Index(retrieval, pages)
    texts = sorted({*(unit for page in pages for unit in page), *(text for text, _ in asked)})
    return Index(retrieval, pages, _vectors(retrieval.encoder, texts))


def found_places(index: Index, asked: Sequence[Asked]) -> list[list[int]]:
    """For each question the places in `index.texts` of its best k units, in the order of the text.

    From this node's cache if they are there: it depends on the retriever, its scope and encoder,
    the pages and the questions.
    """
    retrieval = index.retrieval
    depth = -(-retrieval.k // _DEPTH) * _DEPTH
    of = [retrieval.version, retrieval.retriever, retrieval.scope, depth]
    pages = _pages(asked)
    place = {page: at for at, page in enumerate(index.pages)}
    places = {key: place[page] for key, page in pages.items()}
    questions = [(question, places[id(page)]) for question, page in asked]
    key = [*of, _digest(index.pages), _digest(questions)]
    rows = node_array("places", key, lambda: _searched(index, asked, depth))
    best = rows[:, : retrieval.k].tolist()
    return [sorted(each for each in row if each != _NONE) for row in best]


def _pages(asked: Sequence[Asked]) -> Mapping[int, Page]:
    """Each page once, if all questions have the same one: to compare large pages takes long."""
    return {id(page): page for _, page in asked}


def _searched(index: Index, asked: Sequence[Asked], depth: int) -> Any:
    import numpy

    rows = numpy.full((len(asked), depth), _NONE, dtype=numpy.int32)
    for at, (question, page) in enumerate(asked):
        found = index.ranked(question, page, count=depth)
        rows[at, : len(found)] = found
    return rows


def _vectors(encoder: str, texts: Sequence[str]) -> Vectors:
    """Those of `texts`, read or computed at the first use."""

    @functools.cache
    def every() -> tuple[Any, Mapping[str, int]]:
        return vectors_of(encoder, texts), {text: at for at, text in enumerate(texts)}

    def of(wanted: Sequence[str]) -> Any:
        vectors, place = every()
        return vectors[[place[text] for text in wanted]]

    return of


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
