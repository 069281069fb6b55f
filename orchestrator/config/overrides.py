"""Overrides: applies `--set a.b=c` to the content of a sweep's file, before it is checked.

A path selects a mapping's value by key and a list's option by branch name:
`space.method.lora.rank=[4]` sets the `lora` of `method: [{lora: {...}}, {full: {...}}]`. The value
is YAML.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.yaml_loader import parse_yaml
from trainables.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Override:
    """One `--set`: its text and the path of the value that it set."""

    text: str
    path: str

    def made(self, message: str) -> bool:
        """Whether an error message, which starts with a path, is about the value that it set."""
        return message == self.path or message.startswith((f"{self.path}:", f"{self.path}."))


def apply_overrides(value: object, texts: Sequence[str]) -> tuple[Any, list[Override]]:
    """A copy of the file's value with the overrides applied in order.

    Raises InputError with every override that can't be parsed or whose path does not exist. A new
    key is accepted here; the check of the whole file refuses unknown ones.
    """
    changed: Any = _copied(value)
    applied: list[Override] = []
    faults: list[str] = []
    for text in texts:
        try:
            applied.append(_apply(changed, text))
        except InputError as error:
            faults += [f"--set {text}: {message}" for message in error.messages]
    if faults:
        raise InputError(faults)
    return changed, applied


def _copied(value: Any) -> Any:
    """A copy in which what an alias of the file repeats is there for itself."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return copy.deepcopy(value)


def _apply(root: Any, text: str) -> Override:
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise InputError("needs PATH=VALUE, as --set 'space.quantization=[none, nf4]'.")
    return Override(text, ".".join(_put(root, keys, parse_yaml(value, "the value"), done=[])))


def _put(place: Any, keys: list[str], value: object, *, done: list[str]) -> list[str]:
    """Sets the value at `keys` below `place`; returns the path of what was created or replaced."""
    if isinstance(place, list) and done[0] == "space":
        place = _branch(place, keys, ".".join(done))
    if not isinstance(place, dict):
        raise InputError(f"{'.'.join(done)} is {place!r}; a path can't lead into that.")
    key, taken = _key(place, keys)
    here, rest = [*done, *keys[:taken]], keys[taken:]
    if not rest or place.get(key) is None:
        place[key] = _nest(rest, value)
        return here
    if here[0] == "space" and place[key] == rest[0]:  # `method: lora` becomes a branch
        place[key] = {rest[0]: None}
    return _put(place[key], rest, value, done=here)


def _key(place: Mapping[Any, Any], keys: list[str]) -> tuple[Any, int]:
    """The key of `place` that the path selects, and how many of its parts: keys may have dots."""
    by_text = {str(key): key for key in place}
    for taken in range(len(keys), 0, -1):
        joined = ".".join(keys[:taken])
        if joined in by_text:
            return by_text[joined], taken
    return keys[0], 1


def _branch(options: list[Any], keys: list[str], where: str) -> dict[Any, Any]:
    """The branch of a choice that the path selects; a plain option is replaced by a branch."""
    names = {
        str(next(iter(option)) if isinstance(option, dict) and option else option): position
        for position, option in enumerate(options)
    }
    name, _ = _key(names, keys)
    if name not in names:
        raise InputError(f"{where} has no option '{name}'.{did_you_mean(name, names)}")
    option = options[names[name]]
    branch: dict[Any, Any] = option if isinstance(option, dict) else {option: None}
    options[names[name]] = branch
    return branch


def _nest(keys: list[str], value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value
