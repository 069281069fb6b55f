"""What a task's rule read in an answer, and why it is right or wrong, in a few words. LIGHT.

For people only: nothing here decides a score.
"""

from __future__ import annotations

from trainables.tasks import emacc, programs, tatqa_rule

NOTHING = "nothing was written"
_LONGEST_READ = 60  # characters


def of_answer(completion: str, gold: emacc.Gold) -> str:
    """By EmAcc, of an answer that is a number or a word."""
    span = emacc.completion_span(completion)
    if not span.strip():
        return NOTHING
    read = emacc.parse(span)
    if read is None:
        return "no number can be read"
    return f"reads {_read_text(read)}: {_verdict(emacc.score_completion(completion, gold), gold)}"


def of_program(program: str, table: programs.Table, gold: emacc.Gold) -> str:
    """By EmAcc, of a program that is executed on the question's table."""
    if not program.strip():
        return NOTHING
    try:
        result = programs.execute(program, table)
    except programs.ProgramError as error:
        return f"the program is at fault: {error}"
    shown = result if isinstance(result, str) else emacc.answer_text(result)
    return f"computes {shown}: {_verdict(emacc.score_value(result, gold), gold)}"


def of_tatqa(line: str, gold: tatqa_rule.Answer, *, is_computed: bool) -> str:
    """By TAT-QA's exact match: what was compared with what, with the scale taken in."""
    if not line.strip():
        return NOTHING
    found = tatqa_rule.score_text(line, gold, is_computed=is_computed)
    if found.em_acc and not found.em_acc_strict:
        return f"equal as a bare number, without the scale {gold.scale or 'of the gold'}"
    wanted = tatqa_rule.normalized(tatqa_rule.comparable(gold))
    if found.em_acc:
        return f"equal: both are '{wanted}'"
    parsed = tatqa_rule.parse(line)[-1]  # with a scale, where there is one
    read = tatqa_rule.normalized(tatqa_rule.comparable(parsed))
    read = read if len(read) <= _LONGEST_READ else f"{read[:_LONGEST_READ]}..."
    shared = "" if found.f1 == 0 else f"; F1 {found.f1:.2f}"
    return f"compared as '{read}', the gold is '{wanted}'{shared}"


def _read_text(read: emacc.Number | str) -> str:
    if isinstance(read, str):
        return read
    return f"{read.printed}% = {read.value:.6g}" if read.percent else read.printed


def _verdict(score: emacc.Score, gold: emacc.Gold) -> str:
    if score.em_acc_strict:
        return "equals the gold"
    if score.em_acc:
        return "the gold rounds to it"
    if score.percent_scale:
        return "would be right with a percent sign"
    if not score.numeric:
        return f"the gold is {gold}"
    return "not the gold, nor what the gold rounds to"
