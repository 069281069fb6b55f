"""RETRIEVERS: how units are scored for a question, a row each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

EMBEDDING = "embedding"  # needs an encoder
_COSINE_DECIMALS = 5  # of float32; less is rounding
K1, B = 1.5, 0.75  # of BM25: how soon a repeated term counts no more; how much length counts

Scorer = Callable[[str], Any]
"""From a question to an array of a score for each unit; more is better."""

Vectors = Callable[[Sequence[str]], Any]
"""From texts, units or questions, to an array with a vector of length 1 for each."""

_TERM = re.compile(r"\w+")


def terms(text: str) -> list[str]:
    """The runs of letters and digits of a text, in lower case."""
    return _TERM.findall(text.lower())


def bm25(units: Sequence[str], vectors: Vectors | None = None) -> Scorer:
    """Okapi BM25 (Robertson and Zaragoza, 2009) with the weights of rare terms as in Lucene, which
    are never negative; a term counts as often as the question has it."""
    del vectors
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


def tfidf(units: Sequence[str], vectors: Vectors | None = None) -> Scorer:
    """The cosine of TF-IDF vectors, as scikit-learn makes them."""
    del vectors
    import numpy
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(map(terms, units)):
        return lambda question: numpy.zeros(len(units))
    vectorizer = TfidfVectorizer(analyzer=terms)
    weights = vectorizer.fit_transform(units)
    return lambda question: (weights @ vectorizer.transform([question]).T).toarray()[:, 0]


def embedding(units: Sequence[str], vectors: Vectors | None = None) -> Scorer:
    """The cosine of the vectors of an encoder, which may differ by rounding between devices."""
    assert vectors is not None  # `options.retrieve_faults` refuses it without an encoder
    of_units, of = vectors(units), vectors
    return lambda question: (of_units @ of([question])[0]).round(_COSINE_DECIMALS)


RETRIEVERS: dict[str, Callable[[Sequence[str], Vectors | None], Scorer]] = {
    "bm25": bm25,
    "tfidf": tfidf,
    EMBEDDING: embedding,
}
