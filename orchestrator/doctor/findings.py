"""Finding, what one check of the doctor found, and the table of them. LIGHT."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100
_WORDS = {True: "pass", False: "FAIL", None: "-"}


@dataclass(frozen=True)
class Finding:
    """One check: passed, failed with its mend, or (None) nothing to check here."""

    check: str
    passed: bool | None
    said: str
    fix: str = ""


def table(findings: Sequence[Finding]) -> str:
    """A line or more per finding: check, result, what was found; below a failure its mend."""
    rows: list[str] = []
    indent = " " * 21
    for finding in findings:
        head = f"{finding.check:<14} {_WORDS[finding.passed]:<6}"
        rows += _filled(head, finding.said)
        if finding.passed is False and finding.fix:
            rows += _filled(indent, f"mend: {finding.fix}")
    return "\n".join(rows)


def all_passed(findings: Sequence[Finding]) -> bool:
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
