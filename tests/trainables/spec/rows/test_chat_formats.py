"""The table of chat formats: what each row writes, held against texts of the published formats."""

from __future__ import annotations

import pytest

from tests.tiny_models import CHAT_TEMPLATE, make_tokenizer
from trainables.data.chat_template import Chat, chat_of
from trainables.spec.knobs import canonical
from trainables.spec.rows.chat_formats import AUTO, CHAT_FORMATS, PLAIN, chat_format_of

BELOW = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n"
)
# The prompt of "one?", "1", "two?": what is written up to the second answer, and what joins that.
PUBLISHED: dict[str, tuple[str, str]] = {
    "llama-2": ("<s>[INST] one? [/INST] 1 </s><s>[INST] two? [/INST]", " "),
    "falcon": ("\n\nUser: one?\n\nAssistant: 1\n\nUser: two?\n\nAssistant:", " "),
    "dolly": (
        f"{BELOW}### Instruction:\none?\n\n### Response:\n1\n\n### End\n\n"
        "### Instruction:\ntwo?\n\n### Response:\n",
        "",
    ),
    "alpaca": (
        f"{BELOW}### Instruction:\none?\n\n### Response:1\n\n"
        "### Instruction:\ntwo?\n\n### Response:",
        "",
    ),
    "chatml": (
        "<|im_start|>user\none?<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n"
        "<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\n",
        "",
    ),
}


def chat(chat_format: str, *, template: str | None = None) -> Chat:
    found = chat_of(make_tokenizer(chat_template=template), chat_format)
    assert found is not None
    return found


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_each_row_writes_turns_as_published(name: str) -> None:
    text, joint = PUBLISHED[name]
    found = chat(name)
    assert found.prompt("two?", earlier=[("one?", "1")]) == text
    assert found.joint == joint
    assert found.prompt("\n two? \n", earlier=[(" one? ", " 1")]) == text


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_a_joint_is_what_stands_before_an_answer_in_an_earlier_turn(name: str) -> None:
    found = chat(name)
    first, second = found.prompt("one?"), found.prompt("two?", earlier=[("one?", "1")])
    assert second.startswith(f"{first}{found.joint}1")


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_quotes_and_templates_in_a_message_are_text(name: str) -> None:
    message = 'it\'s "{{ 7 * 6 }}" {% if %} \\n $x'
    assert message in chat(name).prompt(message)


def test_a_message_of_falcon_has_no_blank_line_for_that_would_begin_a_turn() -> None:
    assert chat("falcon").prompt(" a\r\n\r\nb\n\nc ") == "\n\nUser: a\nb\nc\n\nAssistant:"


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_a_named_format_replaces_a_template_of_the_tokenizer(name: str) -> None:
    assert chat(name, template=CHAT_TEMPLATE).prompt("two?") == chat(name).prompt("two?")


def test_auto_is_the_tokenizers_own_template_and_none_is_plain_text() -> None:
    with_one, without = make_tokenizer(chat_template=CHAT_TEMPLATE), make_tokenizer()
    own = chat_of(with_one)
    assert own is not None and own.prompt("two?") == "<s><|user|>two?</s><|assistant|>"
    assert chat_of(without, AUTO) is None
    assert chat_of(with_one, PLAIN) is None and chat_of(without, PLAIN) is None


def test_the_default_is_not_written_so_that_older_trials_keep_their_ids() -> None:
    assert "chat_format" not in canonical({"model": "m", "chat_format": AUTO})
    assert chat_format_of(canonical({"model": "m"})) == AUTO
    assert chat_format_of(canonical({"model": "m", "chat_format": "dolly"})) == "dolly"
