"""Index: the best units for a question, of its page or of all pages."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainables.spec.rows.task_knobs import RETRIEVED, SCOPES
from trainables.tasks.retrieval.retrievers import RETRIEVERS, Scorer
from trainables.tasks.retrieval.units import Page

VERSION = "1"  # to be raised when units, scores or their order change
_DECIMALS = 9  # of a score: less is rounding, and differs between machines
_PAGES_KEPT = 4096  # scorers of pages in memory, of the split read last


@dataclass(frozen=True)
class Retrieval:
    """What is retrieved: the best `k` units by a row of RETRIEVERS, of a scope in SCOPES."""

    retriever: str
    k: int
    scope: str

    @property
    def version(self) -> str:
        """The context "retrieved", as it is part of the version of a task."""
        return f"{RETRIEVED}-{VERSION}"


@dataclass(frozen=True)
class Index:
    """The units of the pages of a split."""

    retrieval: Retrieval
    pages: tuple[Page, ...]  # each once

    def best(self, question: str, page: Page) -> list[int]:
        """The places in `texts(page)` of the best k units, or of all if they are fewer, in the
        order of the text; of units with equal scores the first ones."""
        import numpy

        scores = numpy.round(self._scorer(page)(question), _DECIMALS)
        return sorted(int(at) for at in numpy.argsort(-scores, kind="stable")[: self.retrieval.k])

    def texts(self, page: Page) -> Sequence[str]:
        """All units among which those for a question about the page are looked for."""
        return self._corpus if self._is_of_corpus else page

    def start(self, page: Page) -> int:
        """The place in `texts(page)` of the first unit of the page."""
        return self._starts[page] if self._is_of_corpus else 0

    @property
    def _is_of_corpus(self) -> bool:
        return self.retrieval.scope != SCOPES[0]

    @cached_property
    def _corpus(self) -> tuple[str, ...]:
        return tuple(unit for page in self.pages for unit in page)

    @cached_property
    def _starts(self) -> Mapping[Page, int]:
        starts, at = {}, 0
        for page in self.pages:
            starts[page] = at
            at += len(page)
        return starts

    def _scorer(self, page: Page) -> Any:
        return self._of_corpus if self._is_of_corpus else _of_page(self.retrieval.retriever, page)

    @cached_property
    def _of_corpus(self) -> Scorer:
        return _of_corpus(self.retrieval.retriever, self._corpus)


def _scorer(retriever: str, units: tuple[str, ...]) -> Scorer:
    return RETRIEVERS[retriever](units)


_of_page = functools.lru_cache(maxsize=_PAGES_KEPT)(_scorer)
_of_corpus = functools.lru_cache(maxsize=3)(_scorer)  # the splits of a task
