"""A question in a model's chat template, which reads the same on any day.

Templates may ask for today's date (Llama 3.2's does): it would make a prompt, its length and so a
trial's result depend on the day. They are told a fixed one, that of Llama's own templates.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

_TODAY = datetime(2024, 7, 26)
_CODES = "aAbBdHIjmMpSyY"  # of strftime


def chat_prompt(tokenizer: Any, message: str) -> str:
    """The user's message up to where the model's answer begins."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}],
        chat_template=_on_a_fixed_day(tokenizer.get_chat_template()),
        date_string=_TODAY.strftime("%d %b %Y"),
        tokenize=False,
        add_generation_prompt=True,
    )
    return text


def _on_a_fixed_day(template: str) -> str:
    """A macro of the template's own stands in the way of transformers' `strftime_now`."""
    if "strftime_now" not in template:
        return template
    replaced = "".join(f"|replace('%{code}', '{_TODAY.strftime('%' + code)}')" for code in _CODES)
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}"
    return f"{macro}\n{template}"  # a newline after a block is trimmed
