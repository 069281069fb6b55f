"""Index: the best units for a question, of its page or of all pages."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from trainables.spec.rows.task_knobs import RETRIEVED, SCOPES
from trainables.tasks.retrieval.encoder import folder_digest
from trainables.tasks.retrieval.retrievers import RETRIEVERS, Scorer, Vectors
from trainables.tasks.retrieval.units import Page

VERSION = "1"  # to be raised when units, scores or their order change
_DECIMALS = 9  # of a score: less is rounding, and differs between machines


@dataclass(frozen=True)
class Retrieval:
    """What is retrieved: the best `k` units by a row of RETRIEVERS, of a scope in SCOPES.

    `encoder`: the folder of the model whose vectors are compared, None if no words of it are read.
    """

    retriever: str
    k: int
    scope: str
    encoder: str | None = None

    @property
    def version(self) -> str:
        """The context "retrieved", as it is part of the version of a task: with the digest of the
        encoder's folder. Raises InputError if that has no model."""
        named = "" if self.encoder is None else f"-{folder_digest(self.encoder)[:16]}"
        return f"{RETRIEVED}-{VERSION}{named}"


@dataclass(frozen=True)
class Index:
    """The units of the pages of a split; `vectors` are those of units and questions, for a
    retriever that compares them."""

    retrieval: Retrieval
    pages: tuple[Page, ...]  # each once
    vectors: Vectors | None = None

    def ranked(self, question: str, page: Page, *, count: int) -> list[int]:
        """The places in `texts(page)` of the best units, the best first; of units with equal scores
        the first one. Of fewer units than `count` all."""
        import numpy

        scores = numpy.round(self._scorer(page)(question), _DECIMALS)
        return [int(at) for at in numpy.argsort(-scores, kind="stable")[:count]]

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

    def _scorer(self, page: Page) -> Scorer:
        return self._of_corpus if self._is_of_corpus else self._of_page(page)

    @cached_property
    def _of_corpus(self) -> Scorer:
        return RETRIEVERS[self.retrieval.retriever](self._corpus, self.vectors)

    @cached_property
    def _of_page(self) -> functools._lru_cache_wrapper[Scorer]:
        """Questions about one page follow each other."""
        make = RETRIEVERS[self.retrieval.retriever]
        return functools.lru_cache(maxsize=1)(lambda page: make(page, self.vectors))
