"""FinQA's named prompts."""

from __future__ import annotations

from trainables.tasks.prompts.templates import PAGE_AND_QUESTION, SHORT, STATEMENTS

DEFAULT = "default"
PROGRAM = "program"
PROMPTS: dict[str, str] = {
    DEFAULT: """You are an analyst who answers questions about a company's annual report.
Find the figures that the question needs, decide how they combine, calculate, and check the sign \
and the unit.
Write only the final number: no words, no unit, no thousands separators. Write a share or a \
percentage as a fraction (0.125 for 12.5%), and yes or no where the question asks for that.
"""
    + PAGE_AND_QUESTION,
    PROGRAM: """You are an analyst who answers questions about a company's annual report.
Find the figures that the question needs and write the calculation as a program: steps separated \
by ", ", each an operator with two arguments, such as subtract(120, 100), divide(#0, 100).
The operators are add, subtract, multiply, divide, exp, greater (which gives yes or no), and \
table_max, table_min, table_sum, table_average, as in table_sum(net sales, none) over a row of \
the table. #0 is the result of the first step; const_100 is the number 100.
Write only the program.
"""
    + PAGE_AND_QUESTION,
    "short": SHORT,
    "statements": STATEMENTS,
}
