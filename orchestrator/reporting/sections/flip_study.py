"""The study of flips as tables: all of its slices, or the three that differ most."""

from __future__ import annotations

import shlex

from orchestrator.analysis.flip_study import SliceCount, Study
from orchestrator.formatting import counted, format_p_value
from orchestrator.reporting.document import Block, Code, Paragraph, Picture, Section, Table
from trainables.storage.run_folder import RunFolder

SHOWN = 3  # in the report
_HEADERS = ("property", "slice", "asked", "lost", "gained", "points", "95% interval",
            "elsewhere", "p (Holm)", "")  # fmt: skip


def most_different(found: Study, run: RunFolder) -> list[Block]:
    """The slices that differ most, for the report, and where to see all."""
    if not any(level.slices for level in found.levels):
        return []
    table, picture = run.flips_files(found.factor)
    ask = ["python", "-m", "orchestrator.report", run.place, "--flips", found.factor]
    rows = [(level.level, *_row(each)) for level, each in found.most_different[:SHOWN]]
    return [
        Paragraph(answer(found)),
        Table([found.factor, *_HEADERS], rows, words=3, caption="The slices that differ most:"),
        Picture(picture.name, str(picture), "Lost and gained by slice"),
        Paragraph(f"Every slice, and its questions in `{table.name}`:"),
        Code(shlex.join(ask)),
    ]


def whole_study(found: Study, run: RunFolder) -> list[Section]:
    """What the study found, a table for each level, and its files."""
    sections = [
        Section("Which sentences break", [Paragraph(answer(found), strong=True), _how(found)])
    ]
    for level in found.levels:
        rows = [_row(each) for each in (level.whole, *level.slices)]
        heading = f"{found.factor} {level.level} against {level.reference_level}"
        caption = f"{counted(level.pairs, 'pair')} of {_what(found)}:"
        sections.append(Section(heading, [Table(_HEADERS, rows, words=2, caption=caption)]))
    table, picture = run.flips_files(found.factor)
    files = Table(["", "path"], [("the questions", str(table)), ("picture", str(picture))], words=2)
    return [*sections, Section("Where it lies", [files])]


def answer(found: Study) -> str:
    """The slices that lose or gain right answers, in a sentence."""
    significant = [(level, each) for level, each in found.most_different if each.is_significant]
    count = sum(len(level.slices) for level in found.levels)
    if not any(level.whole.lost or level.whole.gained for level in found.levels):
        return "No question flips: both are right, or both wrong, on each."
    if not significant:
        return f"No slice of {count} has a difference that chance would not make (Holm, 5%)."
    parts = [
        f"{level.level} {_verb(each)} where {each.name.replace('_', ' ')} is "
        f"{each.level!r} ({each.lost} lost, {each.gained} gained of {each.asked})"
        for level, each in significant[:SHOWN]
    ]
    more = f"; and {len(significant) - SHOWN} more" if len(significant) > SHOWN else ""
    return (
        f"Right answers change in {len(significant)} of {count} slices: {'; '.join(parts)}{more}."
    )


def _how(found: Study) -> Paragraph:
    several = any(level.pairs > 1 for level in found.levels)
    pooled = (
        " Of several pairs a question counts once: lost if more of them lost it than gained it."
        if several
        else ""
    )
    bases = " No two trained ones differ in it only." if found.is_of_baselines else ""
    return Paragraph(
        f"Pairs of {_what(found)} that differ in {found.factor} only.{bases} Lost: the reference "
        f"alone is right; gained: the other alone.{pooled} Exact McNemar on the questions of each "
        "slice, Holm over all slices; intervals, and the test of all questions, are not adjusted. "
        "Elsewhere: the points of the property's other slices, with which a slice that differs is "
        "to be compared."
    )


def _what(found: Study) -> str:
    return "untrained bases" if found.is_of_baselines else "trained configurations"


def _verb(each: SliceCount) -> str:
    return "loses" if each.difference < 0 else "gains"


def _row(each: SliceCount) -> tuple[str, ...]:
    low, high = each.interval
    is_whole = not each.level
    return (
        each.name.replace("_", " "),
        each.level,
        str(each.asked),
        str(each.lost),
        str(each.gained),
        f"{100 * each.difference:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        "" if is_whole else f"{100 * each.elsewhere:+.1f}",
        format_p_value(each.p_value).removeprefix("p ").removeprefix("= "),
        "differs" if each.is_significant else "",
    )
