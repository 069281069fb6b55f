"""The options of the FinQA task: its data, context, prompt and target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from trainables.errors import InputError, did_you_mean
from trainables.tasks.retrieval.index import Retrieval
from trainables.tasks.retrieval.options import (
    context_faults,
    retrieval_of,
    without_retrieval,
)
from trainables.tasks.splits import files_read, unknown_options
from trainables.tasks.task import SPLITS

TARGETS = ("answer", "program")


@dataclass(frozen=True)
class SyntheticData:
    """Generated records: how many of which kinds (`trainables.tasks.finqa.synthetic`)."""

    kinds: tuple[str, ...]
    train: int
    selection: int
    report: int
    seed: int


@dataclass(frozen=True)
class Options:
    """The options of the task, from `data` and the task's knobs.

    `train`, `selection`, `report`: files; without `report`, half of the selection file's pages are
    the report split. `generated` replaces the files. `context`: one of `task_knobs.CONTEXTS`, with
    `retrieval` if it is retrieved. `prompt`: a named one or a template file; None is the default
    one of the `target` ("answer" or "program").
    `skip_missing_context`: leave out and count the records that lack the context. `asked`: the one
    split that is needed, where nothing is trained; other files are not read.
    """

    train: str | None = None
    selection: str | None = None
    report: str | None = None
    generated: SyntheticData | None = None
    context: str = "full"
    prompt: str | None = None
    target: str = "answer"
    skip_missing_context: bool = False
    asked: str | None = None
    retrieval: Retrieval | None = None

    @property
    def context_version(self) -> str:
        return self.context if self.retrieval is None else self.retrieval.version


def parse_options(given: Mapping[str, Any]) -> Options:
    """Raises InputError with all options that are unknown, missing or of the wrong type."""
    own = without_retrieval(given)
    known = [field.name for field in fields(Options) if field.name != "retrieval"]
    faults = [*unknown_options(own, known), *context_faults(given)]
    for name in ("train", "selection", "report", "prompt"):
        if given.get(name) is not None and not isinstance(given[name], str):
            faults.append(f"data.{name}: {given[name]!r} is not a path or a name.")
    if "target" in given and given["target"] not in TARGETS:
        faults.append(f"data.target: {given['target']!r}.{did_you_mean(given['target'], TARGETS)}")
    if not isinstance(given.get("skip_missing_context", False), bool):
        faults.append(
            f"data.skip_missing_context: {given['skip_missing_context']!r}: true or false."
        )
    generated, found = _parse_generated(given.get("generated"))
    faults += found or _source_faults(given)
    if faults:
        raise InputError(faults)
    return Options(**{**own, "generated": generated, "retrieval": retrieval_of(given)})


def _source_faults(given: Mapping[str, Any]) -> list[str]:
    files = [split for split in SPLITS if given.get(split) is not None]
    if given.get("generated") is not None:
        return [f"data.{split}: a file beside data.generated; give one of them." for split in files]
    needed = files_read(given.get("asked"), has_report="report" in files)
    return [
        f"data.{split}: missing; give a FinQA file, or data.generated."
        for split in needed
        if split not in files and split != "report"
    ]


def _parse_generated(given: Any) -> tuple[SyntheticData | None, list[str]]:
    from trainables.tasks.finqa.synthetic import KINDS

    if given is None:
        return None, []
    if not isinstance(given, Mapping):
        return None, [
            f"data.generated: {given!r} is not a mapping of kinds, {', '.join(SPLITS)}, seed."
        ]
    names = [field.name for field in fields(SyntheticData)]
    faults = _unknown(given, allowed=names)
    faults += [f"data.generated.{name}: missing." for name in names if name not in given]
    for name in (*SPLITS, "seed"):
        value = given.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < int(name != "seed"):
            faults.append(f"data.generated.{name}: {value!r} is not a positive whole number.")
    kinds = given.get("kinds", list(KINDS))
    if not isinstance(kinds, list | tuple) or not kinds:
        faults.append(f"data.generated.kinds: {kinds!r} is not a list of {', '.join(KINDS)}.")
    else:
        faults += [
            f"data.generated.kinds: unknown kind {kind!r}.{did_you_mean(kind, KINDS)}"
            for kind in kinds
            if not isinstance(kind, str) or kind not in KINDS
        ]
    return (None, faults) if faults else (SyntheticData(**{**given, "kinds": tuple(kinds)}), [])


def _unknown(given: Mapping[str, Any], *, allowed: Sequence[str]) -> list[str]:
    return [
        f"data.generated.{name}: unknown option.{did_you_mean(name, allowed)}"
        for name in given
        if name not in allowed
    ]
