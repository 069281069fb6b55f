"""The options of retrieval: the knobs `context`, `retriever`, `k`, `scope`, and `data.retrieve`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from trainables.errors import did_you_mean
from trainables.spec.knobs import KNOBS
from trainables.spec.rows.task_knobs import CONTEXTS, RETRIEVED
from trainables.tasks.retrieval.index import Retrieval
from trainables.tasks.retrieval.retrievers import EMBEDDING

RETRIEVAL_KNOBS = ("context", "retriever", "k", "scope")  # rows of KNOBS
SECTION = "retrieve"  # of `data`
ENCODER = "encoder"  # in the section


def context_faults(given: Mapping[str, Any], *, section: Collection[str] = (ENCODER,)) -> list[str]:
    """What is wrong with the context of a task's options, with what retrieves it, and with their
    section `retrieve`, which may have the keys `section`, each a text."""
    faults = list(_section_faults(given.get(SECTION), section))
    context = given.get("context", KNOBS["context"].default)
    if context not in CONTEXTS:
        return [*faults, f"data.context: {context!r}.{did_you_mean(context, CONTEXTS)}"]
    named = [name for name in RETRIEVAL_KNOBS[1:] if name in given]
    if context == RETRIEVED and not named:
        faults.append(
            "data.context: retrieved has knobs of its own; write it in space, as space.context: "
            "{retrieved: {retriever: bm25, k: [3, 5], scope: page}}."
        )
    wrong = ((name, KNOBS[name].check(given[name])) for name in named)
    faults += [f"space.{name}: {fault}" for name, fault in wrong if fault]
    if given.get("retriever") == EMBEDDING and not faults and not _encoder(given):
        faults.append(
            f"data.{SECTION}.{ENCODER}: missing; space.retriever: {EMBEDDING} needs the folder of "
            f"a model, as data.{SECTION}: {{{ENCODER}: base_models/sentiment}}."
        )
    return faults


def retrieval_of(given: Mapping[str, Any]) -> Retrieval | None:
    """What the options retrieve; None if their context is another. `context_faults` accepts
    them."""
    if given.get("context") != RETRIEVED:
        return None
    values = {name: given.get(name, KNOBS[name].default) for name in RETRIEVAL_KNOBS[1:]}
    encoder = _encoder(given) if values["retriever"] == EMBEDDING else None
    return Retrieval(**values, encoder=encoder)


def without_retrieval(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of which a task knows nothing but what `retrieval_of` returns."""
    own = {*RETRIEVAL_KNOBS[1:], SECTION}
    return {name: value for name, value in given.items() if name not in own}


def _encoder(given: Mapping[str, Any]) -> str | None:
    found = (given.get(SECTION) or {}).get(ENCODER)
    return None if found is None else str(found)


def _section_faults(section: Any, known: Collection[str]) -> Iterator[str]:
    if section is None:
        return
    if not isinstance(section, Mapping):
        yield f"data.{SECTION}: got {section!r}; needs a mapping of {', '.join(known)}."
        return
    for name, value in section.items():
        if name not in known:
            yield f"data.{SECTION}.{name}: unknown option.{did_you_mean(name, known)}"
        elif not isinstance(value, str) or not value:
            yield f"data.{SECTION}.{name}: got {value!r}; needs a text."
