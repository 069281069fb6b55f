"""Options: what `data` says of a user's own files, checked; no file is read here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from trainables.errors import InputError, did_you_mean
from trainables.spec.rows.task_knobs import ANSWERS
from trainables.tasks.own_data.splits import Shares, parse_shares
from trainables.tasks.splits import unknown_options
from trainables.tasks.task import LINE_BREAK

COLUMNS = ("input", "target", "id")  # what `columns` may name, of every task
GENERATE = ANSWERS[0]
HUB = ("hub", "revision", "subset")  # options of a data set of the hub


@dataclass(frozen=True)
class Options:
    """The options of `data`, and the knobs `prompt`, `target` and `answer`.

    `train`, `selection` and `report` are files (without `report`, half of the groups of the
    selection file), or `file` is one that `split` shares out. `columns` names those of the input,
    the target and the id where they have other names than usual. `stop` ends an answer, None: only
    the end token. `labels` has what is written for each label, the first is learned. `asked`: the
    one split that is needed, where nothing is trained. With `hub`, a data set of the hub at a
    `revision`, the files are names of its splits; `subset` is one of its configurations.
    """

    train: str | None = None
    selection: str | None = None
    report: str | None = None
    file: str | None = None
    split: Shares | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    allow_duplicates: bool = False
    metrics: tuple[str, ...] | None = None
    stop: str | None = LINE_BREAK
    labels: Mapping[str, tuple[str, ...]] | None = None
    prompt: str = "default"
    target: str = "answer"
    answer: str = GENERATE
    asked: str | None = None
    hub: str | None = None
    revision: str | None = None
    subset: str | None = None


def parse_options(
    given: Mapping[str, Any],
    *,
    without: tuple[str, ...] = (),
    named_columns: tuple[str, ...] = COLUMNS,
    others: tuple[str, ...] = (),
) -> Options:
    """The options; a task that does not know some of them names these in `without`. `columns` may
    name `named_columns`. `others` are options that the task reads itself, named to who misspells.

    Without `train` no files are asked for, nor a data set of the hub. Raises InputError with
    all that is wrong.
    """
    unread = (*without, *(HUB if "train" in without else ()))
    names = [each.name for each in fields(Options) if each.name not in unread]
    faults = unknown_options(given, [*names, *others])
    parsed: dict[str, Any] = {}
    for name, value in given.items():
        if name not in names:
            continue
        try:
            parsed[name] = _READERS[name](f"data.{name}", value)
        except InputError as error:
            faults += error.messages
    faults += _unnamed(parsed.get("columns", {}), named_columns)
    faults += _file_faults(given) if "train" in names else []
    if faults:
        raise InputError(faults)
    return Options(**parsed)


def _file_faults(given: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        f"data.{name}: is of a data set of the hub; name it as data.hub."
        for name in HUB[1:]
        if given.get(name) and not given.get("hub")
    )
    by_split = [name for name in ("train", "selection", "report") if given.get(name)]
    if given.get("file"):
        if by_split:
            yield f"data.file: there is data.{by_split[0]} as well. Give one file, or one a split."
        if not given.get("split"):
            yield "data.split: missing; data.file needs it, as {selection: 0.1, report: 0.1}."
        return
    if given.get("split"):
        yield "data.split: shares out one file; name it as data.file."
    needed = ("train", "selection") if given.get("asked") is None else ()
    missing = [f"data.{name}" for name in needed if name not in by_split]
    if missing:
        yield (
            f"{' and '.join(missing)}: missing; name a file for each split, or data.file and "
            "data.split."
        )


def _text(where: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise InputError(f"{where}: got {value!r}; needs a text.")
    return value


def _columns(where: str, value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: got {value!r}; needs a mapping, as {{input: text}}.")
    faults = [
        f"{where}.{name}: got {column!r}; needs the name of a column."
        for name, column in value.items()
        if not isinstance(column, str) or not column
    ]
    if faults:
        raise InputError(faults)
    return dict(value)


def _unnamed(columns: Mapping[str, str], known: Sequence[str]) -> Iterator[str]:
    for name in columns:
        if name not in known:
            yield f"data.columns.{name}: unknown key.{did_you_mean(name, known)}"


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{where}: got {value!r}; needs true or false.")
    return value


def _names(where: str, value: Any) -> tuple[str, ...]:
    del where  # the task checks them: trainables.metrics.registry
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)


def _labels(where: str, value: Any) -> Mapping[str, tuple[str, ...]]:
    if isinstance(value, list | tuple) and value:
        value = {str(label): [str(label)] for label in value}
    if not isinstance(value, Mapping) or not value:
        raise InputError(
            f"{where}: got {value!r}; needs a list of labels, or for each label what is written "
            "for it, as {positive: [positive, bullish]}."
        )
    written = {
        str(label): tuple(map(str, words)) if isinstance(words, list | tuple) else (str(words),)
        for label, words in value.items()
    }
    faults = [f"{where}.{label}: nothing is written." for label in written if not written[label]]
    owners: dict[str, str] = {}
    for label, words in written.items():
        for word in words:
            first = owners.setdefault(word.casefold(), label)
            if first != label:
                faults.append(f"{where}: {word!r} is written for {first} and for {label}.")
            if not word.strip() or LINE_BREAK in word:
                faults.append(f"{where}.{label}: {word!r} is no text of one line.")
    if len(written) < 2:
        faults.append(f"{where}: needs two labels at least.")
    if faults:
        raise InputError(faults)
    return written


def _answer(where: str, value: Any) -> str:
    if value not in ANSWERS:
        raise InputError(f"space.answer: got {value!r}.{did_you_mean(value, ANSWERS)}")
    return str(value)


def _shares(where: str, value: Any) -> Shares:
    del where
    return parse_shares(value)


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "train": _text,
    "selection": _text,
    "report": _text,
    "file": _text,
    "split": _shares,
    "columns": _columns,
    "allow_duplicates": _flag,
    "metrics": _names,
    "stop": _text,
    "labels": _labels,
    "prompt": _text,
    "target": _text,
    "answer": _answer,
    "asked": _text,
    **dict.fromkeys(HUB, _text),
}
