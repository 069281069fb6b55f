"""CHAT_FORMATS: the published formats of chat and instruction models, for bases without a template.

A row writes turns as the makers of its models describe them, without a system message. `auto` is
the tokenizer's own template, or plain text if it has none; `none` is plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.spec.checks import one_of
from trainables.spec.knob import Knob

AUTO, PLAIN = "auto", "none"


@dataclass(frozen=True)
class ChatFormat:
    """`template` is a Jinja template as tokenizers have them; `joint` stands between its prompt and
    an answer, in an earlier turn as well."""

    template: str
    joint: str = ""


_STRIPPED = "message['content'].strip()"


def chat_format_of(knobs: Mapping[str, Any]) -> str:
    """What canonical knobs say of the format."""
    return str(knobs.get("chat_format", AUTO))


def _always(configuration: Mapping[str, Any]) -> bool:
    del configuration
    return True


def _turns(
    user: str, assistant: str, *, opening: str, before: str = "", said: str = _STRIPPED
) -> str:
    """The template of formats whose turns are texts of their own, with `{}` for what is `said`;
    `opening` begins the answer that is asked for."""
    turns = [_written(text) for text in (user, assistant)]
    asked, answered = (turn.replace("{}", f"' + {said} + '") for turn in turns)
    return (
        f"{_written(before) if before else ''}{{% for message in messages %}}"
        f"{{% if message['role'] == 'user' %}}{asked}{{% else %}}{answered}{{% endif %}}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{_written(opening)}{{% endif %}}"
    )


def _written(text: str) -> str:
    escaped = text.replace("\n", "\\n")  # templates trim line breaks of their own
    return f"{{{{ '{escaped}' }}}}"


_INSTRUCTION = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n"
)
_LLAMA_2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token }}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' }}{{ eos_token }}{% endif %}{% endfor %}"
)

CHAT_FORMATS: dict[str, ChatFormat] = {
    "llama-2": ChatFormat(_LLAMA_2, joint=" "),  # each message with its answer is a text
    "falcon": ChatFormat(  # a blank line begins a turn, so that a message has none
        _turns(
            "\n\nUser: {}",
            "\n\nAssistant: {}",
            opening="\n\nAssistant:",
            said=rf"{_STRIPPED}.replace('\r\n', '\n').replace('\n\n', '\n')",
        ),
        joint=" ",
    ),
    "dolly": ChatFormat(  # one turn is published; an earlier one ends as in training
        _turns(
            "### Instruction:\n{}\n\n",
            "### Response:\n{}\n\n### End\n\n",
            opening="### Response:\n",
            before=_INSTRUCTION,
        )
    ),
    "alpaca": ChatFormat(  # as dolly; in training an answer follows the colon directly
        _turns(
            "### Instruction:\n{}\n\n",
            "### Response:{}\n\n",
            opening="### Response:",
            before=_INSTRUCTION,
        )
    ),
    "chatml": ChatFormat(
        _turns(
            "<|im_start|>user\n{}<|im_end|>\n",
            "<|im_start|>assistant\n{}<|im_end|>\n",
            opening="<|im_start|>assistant\n",
        )
    ),
}
CHAT_FORMAT_ROW = Knob(
    AUTO,
    one_of(AUTO, PLAIN, *CHAT_FORMATS),
    str,
    _always,
    unsaid=True,
    has_column=False,
    simulated=None,
    varied_label="{chat_format}-chat",
)
