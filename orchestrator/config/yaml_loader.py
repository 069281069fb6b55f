"""Reads and writes YAML strictly: safe tags only, no duplicate keys, and errors with their line.

Where YAML 1.1 and 1.2 read a number differently, `1e-3` and `0o10` are numbers as in 1.2, `1_000`
and `0b11` as in 1.1, and what may be meant as another number is refused: `010`, `1:30`. A date is
text.
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
        loader = _Loader(text)
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{where}: {place}{reason}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}.") from None
    except (ValueError, RecursionError) as error:  # as in 0x or a thousand brackets
        raise InputError(f"{where}: is not YAML that can be read: {error}.") from None
    if loader.ambiguous:
        raise InputError([f"{where}: {fault}" for fault in loader.ambiguous])
    return value


def yaml_text(value: object) -> str:
    """The YAML document of a value, in the order of its mappings; `parse_yaml` is the inverse."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses duplicate keys and values that contain themselves.

    `ambiguous`: a fault for each number that YAML 1.1 and 1.2 read differently.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.ambiguous: list[str] = []

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


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that quotes text which _Loader would not read as text."""


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_OCTAL, _SIXTIES = "!octal", "!sixties"
_RESOLVED = (  # before PyYAML's own, which are those of YAML 1.1
    (_FLOAT, re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")),
    (_INT, re.compile(r"[-+]?0o[0-7]+$")),
    (_OCTAL, re.compile(r"[-+]?(?!0*[0-7]?$)0[0-9_]+$")),  # 010 and 08, but not 00 or 07
    (_SIXTIES, re.compile(r"[-+]?([1-9][0-9_]*(:[0-5]?\d)+|\d[0-9_]*(:[0-5]?\d)+\.[0-9_]*)$")),
)


def _with_resolved(base: type, *, without: str = "") -> dict[str, list[tuple[str, Any]]]:
    """PyYAML's resolvers by first character, after those above; `without` one of its tags."""
    own = {first: [*_RESOLVED] for first in "-+.0123456789"}
    theirs = base.yaml_implicit_resolvers  # type: ignore[attr-defined]
    return {
        first: own.get(first, []) + [each for each in theirs.get(first, []) if each[0] != without]
        for first in {**own, **theirs}
    }


_Loader.yaml_implicit_resolvers = _with_resolved(yaml.SafeLoader, without=_TIMESTAMP)
_Dumper.yaml_implicit_resolvers = _with_resolved(yaml.SafeDumper)


def _octal(loader: _Loader, node: yaml.ScalarNode) -> None:
    digits = node.value.replace("_", "")
    has_octal = set(digits.lstrip("+-")) <= set("01234567")
    octal, decimal = (str(int(digits, 8)) if has_octal else "text"), str(int(digits))
    new = "text" if "_" in node.value else decimal
    _refuse(loader, node, octal, new, [decimal, *([octal] if has_octal else [])])


def _sixties(loader: _Loader, node: yaml.ScalarNode) -> None:
    parts = node.value.replace("_", "").lstrip("+-").split(":")
    sign = -1 if node.value.startswith("-") else 1
    small = sign * sum(float(part) * 60 ** (len(parts) - 1 - at) for at, part in enumerate(parts))
    large = small / 60 ** (len(parts) - 1)
    _refuse(loader, node, f"{small:.10g}", "text", [f"{large:.10g}", f"{small:.10g}"])


def _refuse(loader: _Loader, node: yaml.ScalarNode, old: str, new: str, instead: list[str]) -> None:
    place = f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"
    loader.ambiguous.append(
        f"{place}: {node.value} is {old} to YAML 1.1 and {new} to YAML 1.2. "
        f"Write {' or '.join(dict.fromkeys(instead))}, or for text '{node.value}' in quotes."
    )


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node)


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


# SafeLoader's own constructors work in two steps, which lets a value contain itself.
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)
_Loader.add_constructor(_OCTAL, _octal)
_Loader.add_constructor(_SIXTIES, _sixties)


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
