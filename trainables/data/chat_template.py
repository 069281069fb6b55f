"""Writes a question in a chat format or a model's own template, independently of today's date.

Templates may insert the current date (Llama 3.2's does), which would make a prompt, its length and
a trial's result depend on the day. They get a fixed date, the default of Llama's templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2.exceptions import TemplateError

from trainables.errors import first_line
from trainables.spec.rows.chat_formats import AUTO, CHAT_FORMATS

_PROBE = "What is 4711 plus 4712?\nThe answer is a number."
_TODAY = datetime(2024, 7, 26)
_CODES = "aAbBdHIjmMpSyY"  # format codes of strftime


@dataclass(frozen=True)
class Chat:
    """Prompts of one tokenizer in one format; `joint` stands between a prompt and its answer."""

    tokenizer: Any
    template: str | None = None  # the tokenizer's own
    joint: str = ""

    def prompt(self, message: str, *, earlier: Sequence[tuple[str, str]] = ()) -> str:
        """As `chat_prompt`."""
        return chat_prompt(self.tokenizer, message, earlier=earlier, template=self.template)


def chat_of(tokenizer: Any, chat_format: str = AUTO) -> Chat | None:
    """How prompts are written in a format; None if they are plain text."""
    if chat_format in CHAT_FORMATS:
        row = CHAT_FORMATS[chat_format]
        return Chat(tokenizer, row.template, row.joint)
    has_own = chat_format == AUTO and tokenizer.chat_template is not None
    return Chat(tokenizer) if has_own else None


def chat_prompt(
    tokenizer: Any,
    message: str,
    *,
    earlier: Sequence[tuple[str, str]] = (),
    template: str | None = None,
) -> str:
    """The prompt of a user's message, up to the position where the answer begins.

    `earlier` are messages with their answers, in turns before it. `template` is used in place of
    the tokenizer's own.
    """
    turns = [
        {"role": role, "content": content}
        for pair in earlier
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    messages = [*turns, {"role": "user", "content": message}]
    return chat_text(tokenizer, messages, template=template)


def chat_text(
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    *,
    template: str | None = None,
    is_open: bool = True,
) -> str:
    """Messages with a `role` and a `content` in `template`, by default the tokenizer's own; if
    `is_open` up to the position where the assistant's next one begins."""
    text: str = tokenizer.apply_chat_template(
        list(messages),
        chat_template=_on_a_fixed_day(template or tokenizer.get_chat_template()),
        date_string=_TODAY.strftime("%d %b %Y"),
        tokenize=False,
        add_generation_prompt=is_open,
    )
    return text


def template_faults(tokenizer: Any) -> list[str]:
    """Why prompts can't be written in the tokenizer's chat template, if it has one; else []. The
    messages go on after the model's name.

    A template that raises, or in whose text the message is not to be found, as one that expects
    messages in another form.
    """
    if tokenizer.chat_template is None:
        return []
    advice = (
        "Correct chat_template.jinja or chat_template in tokenizer_config.json, or remove it: "
        "without one a prompt is plain text."
    )
    try:
        text = chat_prompt(tokenizer, _PROBE)
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        reason = first_line(error).rstrip(".")
        return [f"its chat template can't be used: {reason}. {advice}"]
    if _PROBE in text:
        return []
    return [
        f"its chat template drops the message: of {_PROBE!r} it makes {text[:200]!r}, so "
        f"that no question would be seen. {advice}"
    ]


def _on_a_fixed_day(template: str) -> str:
    """The template with a macro that hides transformers' `strftime_now`, if it calls that."""
    if "strftime_now" not in template:
        return template
    replaced = "".join(f"|replace('%{code}', '{_TODAY.strftime('%' + code)}')" for code in _CODES)
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}"
    return f"{macro}\n{template}"  # templates trim the newline after a block
