"""Writes a question in a model's chat template, independently of today's date.

Templates may insert the current date (Llama 3.2's does), which would make a prompt, its length and
a trial's result depend on the day. They get a fixed date, the default of Llama's templates.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

_TODAY = datetime(2024, 7, 26)
_CODES = "aAbBdHIjmMpSyY"  # format codes of strftime


def chat_prompt(tokenizer: Any, message: str) -> str:
    """The prompt of a user's message, up to the position where the answer begins."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}],
        chat_template=_on_a_fixed_day(tokenizer.get_chat_template()),
        date_string=_TODAY.strftime("%d %b %Y"),
        tokenize=False,
        add_generation_prompt=True,
    )
    return text


def _on_a_fixed_day(template: str) -> str:
    """The template with a macro that hides transformers' `strftime_now`, if it calls that."""
    if "strftime_now" not in template:
        return template
    replaced = "".join(f"|replace('%{code}', '{_TODAY.strftime('%' + code)}')" for code in _CODES)
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}"
    return f"{macro}\n{template}"  # templates trim the newline after a block
