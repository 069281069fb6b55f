"""Prompts as text with the columns of a user's file in braces."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import InputError, near_name
from trainables.tasks.own_data.values import text_of
from trainables.tasks.records import read_text
from trainables.tasks.task import Cut, Prompt

_VERSION = "1"  # of the way in which a text is filled in
_PIECE = re.compile(r"(\{\{|\}\}|\{[^{}\n]*\})")
DOUBLED = {"{{": "{", "}}": "}"}


@dataclass(frozen=True)
class PromptText:
    """`text` with {column} for a value, and {{ and }} for braces."""

    text: str

    @property
    def columns(self) -> list[str]:
        """The names in braces, in their order."""
        return [part[1:-1] for part in _PIECE.split(self.text) if _is_column(part)]

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"own {_VERSION}\n{self.text}".encode()).hexdigest()

    def faults(self, columns: Sequence[str]) -> list[str]:
        """What is wrong with it for a file that has these columns."""
        unknown = [name for name in self.columns if name not in columns]
        found = [
            f"space.prompt: no column {name!r}; there are {', '.join(columns)}."
            f"{_meant(name, columns)}"
            " (write {{ and }} for braces that stay)"
            for name in dict.fromkeys(unknown)
        ]
        if not self.columns:
            found.append(
                f"space.prompt: {self.text[:80]!r} shows no column, so that all questions would be "
                f"alike; write one in braces: {', '.join(columns)}."
            )
        return found

    def fill(self, values: Mapping[str, Any]) -> Prompt:
        """The prompt of a row; where it is too long, its columns lose their ends, the last first.

        An answer follows it after a space, unless the prompt ends with white space.
        """
        parts = [part for part in _PIECE.split(self.text) if part]
        pieces = [
            text_of(values[part[1:-1]]) if _is_column(part) else DOUBLED.get(part, part)
            for part in parts
        ]
        cuts = [Cut(at, "end") for at, part in enumerate(parts) if _is_column(part)]
        ends_open = not "".join(pieces)[-1:].isspace()
        return Prompt(tuple(pieces), tuple(cuts[::-1]), reply="", joint=" " if ends_open else "")


def load_prompt_text(name_or_text: str, prompts: Mapping[str, str]) -> PromptText:
    """One of `prompts` by its name, a file, or the text itself.

    Raises InputError if a file can't be read, and for a word that is neither a name nor shows a
    column.
    """
    if name_or_text in prompts:
        return PromptText(prompts[name_or_text])
    if "{" in name_or_text:
        return PromptText(name_or_text)
    path = Path(name_or_text)
    if "\n" not in name_or_text and len(name_or_text) < 1000 and path.is_file():
        return PromptText(read_text(path).rstrip("\n"))
    raise InputError(
        f"space.prompt: {name_or_text[:80]!r} is neither a named prompt ({', '.join(prompts)}) "
        "nor a file nor a text with a {column}."
    )


def _is_column(part: str) -> bool:
    return part.startswith("{") and part not in DOUBLED


def _meant(name: str, columns: Sequence[str]) -> str:
    near = near_name(name, columns)
    return f" Did you mean {near!r}?" if near else ""
