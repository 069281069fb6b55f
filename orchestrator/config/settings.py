"""Settings: one mapping of a sweep's file, read strictly against a table of what it may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from trainables.errors import InputError, did_you_mean
from trainables.spec.checks import Check

REQUIRED = object()
T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What a setting accepts, and its value if it is not given."""

    check: Check
    default: Any = REQUIRED


class Faults:
    """Collects the messages of one InputError after another."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def catch(self, read: Callable[..., T], *arguments: Any) -> T | None:
        """What `read` returns, or None after its messages were taken down."""
        try:
            return read(*arguments)
        except InputError as error:
            self.messages += error.messages
            return None


def read_settings(value: object, where: str, table: Mapping[str, Setting]) -> dict[str, Any]:
    """Every setting of the table with its value; raises InputError with all that is wrong.

    `where` is the mapping's own path, empty for the whole file.
    Nothing at all (YAML's null) reads as an empty mapping, and a null setting as its default.
    """
    given = {} if value is None else value
    prefix = f"{where}." if where else ""
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: got {value!r}; needs a mapping with {', '.join(table)}.")
    faults = [
        f"{prefix}{name}: unknown key.{did_you_mean(name, table)}"
        for name in given
        if name not in table
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
    """Accepts a mapping with names as keys; what lies in it is for others to judge."""
    fits = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    return None if fits else f"got {value!r}; needs a mapping."


def _wrong(value: Any, setting: Setting) -> str | None:
    if value is None:
        return "missing; it has no default." if setting.default is REQUIRED else None
    return setting.check(value)


def _value(value: Any, setting: Setting) -> Any:
    return setting.default if value is None else value
