"""Settings: reads one mapping of a sweep's file strictly, by a table of checks and defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.space.foreign_names import meant
from trainables.errors import InputError
from trainables.spec.checks import Check, is_finite

REQUIRED = object()
T = TypeVar("T")
_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


@dataclass(frozen=True)
class Setting:
    """The check of a setting's value, and the default if it is not given."""

    check: Check
    default: Any = REQUIRED


class Faults:
    """Collects the messages of several InputErrors."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def catch(self, read: Callable[..., T], *arguments: Any) -> T | None:
        """The result of `read`; None if it raised InputError, whose messages are collected."""
        try:
            return read(*arguments)
        except InputError as error:
            self.messages += error.messages
            return None


def read_settings(value: object, where: str, table: Mapping[str, Setting]) -> dict[str, Any]:
    """The value of every setting in the table. Raises InputError with all faults.

    `where` is the path of the mapping, empty for the whole file. A null mapping is read as empty,
    a null setting as its default.
    """
    given = {} if value is None else value
    prefix = f"{where}." if where else ""
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: got {value!r}; needs a mapping with {', '.join(table)}.")
    faults = [
        f"{prefix}{name}: unknown key.{meant(name, table)}" for name in given if name not in table
    ]
    for name, setting in table.items():
        wrong = _wrong(given.get(name), setting)
        faults += [f"{prefix}{name}: {wrong}"] if wrong else []
    if faults:
        raise InputError(faults)
    return {name: _value(given.get(name), setting) for name, setting in table.items()}


def names(value: Any) -> str | None:
    """Accepts a list of names."""
    fits = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return None if fits else f"got {value!r}; needs a list of names."


def options(value: Any) -> str | None:
    """Accepts a mapping with names as keys, whatever its values are."""
    fits = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    return None if fits else f"got {value!r}; needs a mapping."


def size(value: Any) -> str | None:
    """Accepts sizes: a whole number of bytes, or as 40GiB, 512 MiB, 80GB."""
    if parsed_size(value) is not None:
        return None
    return f"got {value!r}; needs a size, as 40GiB or 512MiB, or a whole number of bytes."


def accelerator_type(value: Any) -> str | None:
    """Accepts the names that Ray gives to GPUs: A100, H100, T4."""
    fits = isinstance(value, str) and value.strip() != ""
    return None if fits else f"got {value!r}; needs Ray's name of a GPU, as A100 or H100."


def parsed_size(value: Any) -> int | None:
    """The bytes of a size that `size` accepts; None for anything else."""
    if is_finite(value):
        return int(value) if value > 0 and value == int(value) else None
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    unit = _UNITS.get(match[2].upper()) if match else None
    found = None if match is None or unit is None else int(float(match[1]) * unit)
    return found or None


def _wrong(value: Any, setting: Setting) -> str | None:
    if value is None:
        return "missing; it has no default." if setting.default is REQUIRED else None
    return setting.check(value)


def _value(value: Any, setting: Setting) -> Any:
    return setting.default if value is None else value
