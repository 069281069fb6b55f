"""Finding: the result of one check of the doctor, and a table of findings."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100
_WORDS = {True: "pass", False: "FAIL", None: "-"}


@dataclass(frozen=True)
class Finding:
    """The result of one check; `passed` is None if there was nothing to check.

    `said` is what was found, `fix` how to repair a failure.
    """

    check: str
    passed: bool | None
    said: str
    fix: str = ""


def table(findings: Sequence[Finding]) -> str:
    """One or more lines per finding: check, result, what was found; below a failure its fix."""
    rows: list[str] = []
    indent = " " * 21
    for finding in findings:
        head = f"{finding.check:<14} {_WORDS[finding.passed]:<6}"
        rows += _filled(head, finding.said)
        if finding.passed is False and finding.fix:
            rows += _filled(indent, f"mend: {finding.fix}")
    return "\n".join(rows)


def all_passed(findings: Sequence[Finding]) -> bool:
    """True if no check has failed."""
    return all(finding.passed is not False for finding in findings)


def _filled(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        width=WIDTH,
        initial_indent=head,
        subsequent_indent=" " * 21,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head]
