"""Questions in a chat template: the messages that it gets, and no dependence on the date."""

from __future__ import annotations

import pytest

from tests.tiny_models import CHAT_TEMPLATE, make_tokenizer
from trainables.data.chat_template import chat_prompt, template_faults

LLAMA = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}{%- endif %}'
    "Today Date: {{ date_string }}\n{{ messages[0]['content'] }}"
)


def prompt(template: str) -> str:
    return chat_prompt(make_tokenizer(chat_template=template), "how many?")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (LLAMA, "Today Date: 26 Jul 2024\nhow many?"),
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
        ("{{ strftime_now('%A, %B %d, %Y, %H:%M') }}", "Friday, July 26, 2024, 00:00"),
        (
            "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}",
            "26 Jul 2024",
        ),
        ("{% macro day() %}{{ strftime_now('%d') }}{% endmacro %}{{ day() }}", "26"),
    ],
)
def test_a_template_that_asks_for_the_date_is_told_the_same_on_any_day(
    template: str, text: str
) -> None:
    assert prompt(template) == text


@pytest.mark.parametrize("beginning", ["", " ", "\n", "\n\n  ", "{#- a comment #}"])
def test_nothing_else_in_a_template_changes(beginning: str) -> None:
    with_date = prompt(beginning + "{{ strftime_now('%Y') }} {{ messages[0]['content'] }}\n")
    assert with_date == prompt(beginning + "2024 {{ messages[0]['content'] }}\n")


def test_a_template_without_a_date_is_as_it_was() -> None:
    assert prompt(CHAT_TEMPLATE) == "<s><|user|>how many?</s><|assistant|>"


PARTS = "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (PARTS, "drops the message"),
        ("{{ messages[0]['content'][:9] }}", "drops the message"),
        ("{{ raise_exception('Only system first') }}", "TemplateError: Only system first. Correct"),
        ("{{ messages[0].content.no.such }}", "can't be used: UndefinedError"),
        ("{% if %}", "can't be used: TemplateSyntaxError"),
        ("{{ messages[0]['content'] + 1 }}", "can't be used: TypeError"),
    ],
)
def test_a_template_that_loses_the_message_or_raises_is_refused(template: str, told: str) -> None:
    [fault] = template_faults(make_tokenizer(chat_template=template))
    assert told in fault


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE, LLAMA, "{{ messages[0].content|trim }}"])
def test_a_template_that_holds_the_message_has_no_faults(template: str | None) -> None:
    assert template_faults(make_tokenizer(chat_template=template)) == []
