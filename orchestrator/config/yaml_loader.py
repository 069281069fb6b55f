"""Reads YAML strictly: safe tags only, no duplicate keys, and errors with their line.

Differs from YAML 1.1 in two points: `1e-3` is a number, and a date is a string.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from trainables.errors import InputError, did_you_mean

_MERGE, _TIMESTAMP = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:timestamp"
_SUFFIXES = (".yaml", ".yml")


def read_yaml(path: Path) -> object:
    """The value of the file. Raises InputError if it can't be read or parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.{_near(path)}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; needs a YAML file.{_listed(path)}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}).") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}.") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> object:
    """The value of one YAML document. Raises InputError with `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{where}: {place}{reason}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}.") from None
    except (ValueError, RecursionError) as error:  # as in 0x or a thousand brackets
        raise InputError(f"{where}: is not YAML that can be read: {error}.") from None


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses duplicate keys and values that contain themselves."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        del deep
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name = str(getattr(key, "value", key))
            if name in lines and key.tag != _MERGE:
                problem = f"duplicate key '{name}' (first on line {lines[name]})"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=True)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node)


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


# SafeLoader's own constructors work in two steps, which lets a value contain itself.
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)


def _near(path: Path) -> str:
    names = _names(path.parent)
    if not path.parent.is_dir():
        return f" There is no folder {path.parent}."
    return did_you_mean(path.name, names) if names else f" {path.parent} holds no YAML file."


def _listed(folder: Path) -> str:
    names = _names(folder)
    return f" It holds {', '.join(names)}." if names else ""


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix in _SUFFIXES)
