"""TAT-QA's named prompts; its default asks for text or a number with its scale."""

from __future__ import annotations

from trainables.tasks.prompts.templates import PAGE_AND_QUESTION, SHORT, STATEMENTS

_TATQA = (
    """You are an analyst who answers questions about a table of an annual report and the \
paragraphs around it.
Write only the answer. Where it stands in the text or the table, copy it; where it must be \
calculated, write the number, rounded to two decimals.
Write the scale after a number that has one: thousand, million, billion or percent, as in \
12.5 percent. Separate several items by " | ".
"""
    + PAGE_AND_QUESTION
)
PROMPTS: dict[str, str] = {
    "default": _TATQA,
    "tatqa": _TATQA,
    "short": SHORT,
    "statements": STATEMENTS,
}
