"""What EmAcc read in an answer to FinQA and why that is right or wrong, in a few words.

These texts are for people; they decide no score.
"""

from __future__ import annotations

from trainables.tasks import exact_match
from trainables.tasks.finqa import programs
from trainables.tasks.task import NOTHING


def of_answer(completion: str, gold: exact_match.Gold) -> str:
    """For an answer that is a number or a word."""
    span = exact_match.completion_span(completion)
    if not span.strip():
        return NOTHING
    read = exact_match.parse(span)
    if read is None:
        return "no number can be read"
    scores = exact_match.score_completion(completion, gold)
    return f"reads {_read_text(read)}: {_verdict(scores, gold)}"


def of_program(program: str, table: programs.Table, gold: exact_match.Gold) -> str:
    """For a program, which is executed on the question's table."""
    if not program.strip():
        return NOTHING
    try:
        result = programs.execute(program, table)
    except programs.ProgramError as error:
        return f"the program is at fault: {error}"
    shown = result if isinstance(result, str) else exact_match.answer_text(result)
    return f"computes {shown}: {_verdict(exact_match.score_value(result, gold), gold)}"


def _read_text(read: exact_match.Number | str) -> str:
    if isinstance(read, str):
        return read
    return f"{read.printed}% = {read.value:.6g}" if read.percent else read.printed


def _verdict(score: exact_match.Score, gold: exact_match.Gold) -> str:
    if score.em_acc_strict:
        return "equals the gold"
    if score.em_acc:
        return "the gold rounds to it"
    if score.percent_scale:
        return "would be right with a percent sign"
    if not score.numeric:
        return f"the gold is {gold}"
    return "not the gold, nor what the gold rounds to"
