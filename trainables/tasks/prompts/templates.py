"""Templates of prompts about a report's page: a task's named ones, or template files.

Placeholders: {question}, which a template must have; {pre_text}, {table} or {statements}, and
{post_text} for a full page; {evidence} for the facts or units that replace the page. A question
is asked with a full page or with evidence, never both: the placeholders of the other are empty. A
line whose only placeholder is empty is left out with its newline, so one template serves both. The
reply ("Answer:") is not part of a template.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import InputError, did_you_mean
from trainables.spec.rows.task_knobs import EVIDENCE, FULL
from trainables.tasks.exact_match import MARKER
from trainables.tasks.task import Cut, Prompt

LAYOUT_VERSION = "2"  # part of every digest; to be raised when a rendering changes
REPLY = MARKER
PAGE = ("pre_text", "table", "statements", "post_text")
CONTEXTS = (FULL, EVIDENCE)  # what a file may have of a page
PLACEHOLDERS = (*PAGE, EVIDENCE, "question")
PAGE_AND_QUESTION = """
{pre_text}
{table}
{post_text}
{evidence}

Question: {question}"""
SHORT = "Answer with the final number only, or yes or no.\n" + PAGE_AND_QUESTION
STATEMENTS = "{pre_text}\n{statements}\n{post_text}\n{evidence}\nQuestion: {question}"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CUT_ORDER = (
    ("post_text", "end"),
    ("pre_text", "start"),
    ("table", "end"),
    ("statements", "end"),
    (EVIDENCE, "end"),
)


@dataclass(frozen=True)
class Template:
    """A prompt's text with placeholders in braces."""

    source: str
    text: str

    @property
    def placeholders(self) -> frozenset[str]:
        return frozenset(_PLACEHOLDER.findall(self.text))

    @property
    def digest(self) -> str:
        """The sha256 of the text and of the version of the renderings."""
        return hashlib.sha256(f"{LAYOUT_VERSION}\n{self.text}".encode()).hexdigest()

    def fill(self, values: Mapping[str, str]) -> Prompt:
        """The prompt with the value of each placeholder.

        The text after the table is shortened first, from its end; then the text before it, from
        its start; then the table or the evidence, from its end.
        """
        pieces: list[str] = []
        names: list[str] = []
        for line in self.text.split("\n"):
            parts = _PLACEHOLDER.split(line)  # literal, name, literal, name, ..., literal
            if len(parts) == 3 and not values[parts[1]]:
                continue
            parts[0] = f"\n{parts[0]}" if pieces else parts[0]
            for number, part in enumerate(parts):
                name = part if number % 2 else ""
                piece = values[name] if name else part
                if piece:
                    names.append(name)
                    pieces.append(piece)
        return Prompt(pieces=tuple(pieces), cuts=_cuts(names), reply=REPLY)


def load_template(name_or_path: str, prompts: Mapping[str, str]) -> Template:
    """The one of `prompts` with this name, or a template file.

    Raises InputError with all that is wrong with it.
    """
    if name_or_path in prompts:
        return Template(name_or_path, prompts[name_or_path])
    path = Path(name_or_path)
    if not _is_file(path):
        raise InputError(
            f"prompt: {name_or_path[:80]!r} is neither a named prompt nor a template file."
            f"{did_you_mean(name_or_path, prompts)}"
        )
    template = Template(name_or_path, _read(path).rstrip("\n"))
    faults = _template_faults(template)
    if faults:
        raise InputError(faults)
    return template


def load_template_for(name_or_path: str, prompts: Mapping[str, str], *, context: str) -> Template:
    """As `load_template`, for prompts with this context ("full", or another).

    Raises InputError also for a template that shows nothing of it.
    """
    template = load_template(name_or_path, prompts)
    wanted = PAGE if context == FULL else (EVIDENCE,)
    if not template.placeholders.intersection(wanted):
        raise InputError(
            f"space.prompt: {template.source!r} shows nothing of the {context} context;"
            f" it needs {' or '.join('{' + name + '}' for name in wanted)}."
        )
    return template


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a file's name: someone gave the prompt itself
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"prompt: {path} can't be read: {error}") from error


def _template_faults(template: Template) -> list[str]:
    faults = [
        f"{template.source}:{number}: unknown placeholder {{{name}}}."
        f"{did_you_mean(name, PLACEHOLDERS)}"
        for number, line in enumerate(template.text.split("\n"), start=1)
        for name in _PLACEHOLDER.findall(line)
        if name not in PLACEHOLDERS
    ]
    if "question" not in template.placeholders:
        faults.append(f"{template.source}: the template has no {{question}}; add it.")
    return faults


def _cuts(names: Sequence[str]) -> tuple[Cut, ...]:
    return tuple(
        Cut(piece=piece, side=side)
        for name, side in _CUT_ORDER
        for piece, found in enumerate(names)
        if found == name
    )
