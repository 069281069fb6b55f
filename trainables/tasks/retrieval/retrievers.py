"""RETRIEVERS: how units are scored for a question, a row each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

K1, B = 1.5, 0.75  # of BM25: how soon a repeated term counts no more; how much length counts

Scorer = Callable[[str], Any]
"""From a question to an array of a score for each unit; more is better."""

_TERM = re.compile(r"\w+")


def terms(text: str) -> list[str]:
    """The runs of letters and digits of a text, in lower case."""
    return _TERM.findall(text.lower())


def bm25(units: Sequence[str]) -> Scorer:
    """Okapi BM25 (Robertson and Zaragoza, 2009) with the weights of rare terms as in Lucene, which
    are never negative; a term counts as often as the question has it."""
    import numpy
    from sklearn.feature_extraction.text import CountVectorizer

    if not any(map(terms, units)):
        return lambda question: numpy.zeros(len(units))
    vectorizer = CountVectorizer(analyzer=terms)
    weights = vectorizer.fit_transform(units).tocoo().astype(float)
    lengths = numpy.bincount(weights.row, weights=weights.data, minlength=len(units))
    having = numpy.bincount(weights.col)
    rarity = numpy.log1p((len(units) - having + 0.5) / (having + 0.5))
    norm = K1 * (1 - B + B * lengths / lengths.mean())
    weights.data *= rarity[weights.col] / (weights.data + norm[weights.row])
    by_unit = weights.tocsr()
    return lambda question: (by_unit @ vectorizer.transform([question]).T).toarray()[:, 0]


def tfidf(units: Sequence[str]) -> Scorer:
    """The cosine of TF-IDF vectors, as scikit-learn makes them."""
    import numpy
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(map(terms, units)):
        return lambda question: numpy.zeros(len(units))
    vectorizer = TfidfVectorizer(analyzer=terms)
    vectors = vectorizer.fit_transform(units)
    return lambda question: (vectors @ vectorizer.transform([question]).T).toarray()[:, 0]


RETRIEVERS: dict[str, Callable[[Sequence[str]], Scorer]] = {"bm25": bm25, "tfidf": tfidf}
