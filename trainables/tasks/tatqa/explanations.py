"""Why an answer to TAT-QA is right or wrong, in a few words; for people only."""

from __future__ import annotations

from trainables.tasks.task import NOTHING
from trainables.tasks.tatqa import scoring

_LONGEST_READ = 60  # characters


def of_tatqa(line: str, gold: scoring.Answer, *, is_computed: bool) -> str:
    """The two strings that TAT-QA's exact match compared, with the scale applied."""
    if not line.strip():
        return NOTHING
    found = scoring.score_text(line, gold, is_computed=is_computed)
    if found.em_acc and not found.em_acc_strict:
        return f"equal as a bare number, without the scale {gold.scale or 'of the gold'}"
    wanted = scoring.normalized(scoring.comparable(gold))
    if found.em_acc:
        return f"equal: both are '{wanted}'"
    parsed = scoring.parse(line)[-1]  # with a scale, where there is one
    read = scoring.normalized(scoring.comparable(parsed))
    read = read if len(read) <= _LONGEST_READ else f"{read[:_LONGEST_READ]}..."
    shared = "" if found.f1 == 0 else f"; F1 {found.f1:.2f}"
    return f"compared as '{read}', the gold is '{wanted}'{shared}"
