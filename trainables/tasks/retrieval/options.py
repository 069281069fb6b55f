"""The options of retrieval: the knobs `context`, `retriever`, `k` and `scope` of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.errors import did_you_mean
from trainables.spec.knobs import KNOBS
from trainables.spec.rows.task_knobs import CONTEXTS, RETRIEVED
from trainables.tasks.retrieval.index import Retrieval

RETRIEVAL_KNOBS = ("context", "retriever", "k", "scope")  # rows of KNOBS


def context_faults(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the context of a task's options, and with what retrieves it."""
    context = given.get("context", KNOBS["context"].default)
    if context not in CONTEXTS:
        return [f"data.context: {context!r}.{did_you_mean(context, CONTEXTS)}"]
    named = [name for name in RETRIEVAL_KNOBS[1:] if name in given]
    if context == RETRIEVED and not named:
        return [
            "data.context: retrieved has knobs of its own; write it in space, as space.context: "
            "{retrieved: {retriever: bm25, k: [3, 5], scope: page}}."
        ]
    return [f"space.{name}: {wrong}" for name in named if (wrong := KNOBS[name].check(given[name]))]


def retrieval_of(given: Mapping[str, Any]) -> Retrieval | None:
    """What the options retrieve; None if their context is another. `context_faults` accepts
    them."""
    if given.get("context") != RETRIEVED:
        return None
    values = {name: given.get(name, KNOBS[name].default) for name in RETRIEVAL_KNOBS[1:]}
    return Retrieval(**values)


def without_retrieval(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of which a task knows nothing but what `retrieval_of` returns."""
    return {name: value for name, value in given.items() if name not in RETRIEVAL_KNOBS[1:]}
