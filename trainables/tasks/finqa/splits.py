"""FinQA's splits: read or generated, separated by page, checked for the requested context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.errors import InputError
from trainables.spec.rows.task_knobs import EVIDENCE, FULL
from trainables.tasks.finqa.files import Record, read_records, record_from
from trainables.tasks.finqa.options import Options, SyntheticData
from trainables.tasks.finqa.programs import program_kind
from trainables.tasks.splits import check_disjoint, files_read, halve
from trainables.tasks.task import SPLITS, Example

_Records = dict[str, list[Record]]


@dataclass(frozen=True)
class Split:
    """The examples of a split, and the number of records left out because they lack the context."""

    examples: tuple[Example, ...]
    skipped: int


def load_splits(options: Options) -> Mapping[str, Split]:
    """All splits. Raises InputError with the faults of all of them."""
    records = _generate(options.generated) if options.generated else _read(options)
    check_disjoint(records, group=_id if options.generated else _page)
    _check_programs(records, options)
    _check_context(records, options)
    return {split: _split(records[split], options) for split in SPLITS}


def page_of(record_id: str) -> str:
    """The page of a question: its id up to the last "-"."""
    return record_id.rpartition("-")[0] or record_id


def _id(record: Record) -> str:
    return str(record.fields["id"])


def _page(record: Record) -> str:
    return page_of(_id(record))


def _split(records: Sequence[Record], options: Options) -> Split:
    kept = [record for record in records if _has_context(record, options.context)]
    examples = tuple(
        Example(
            id=_id(record),
            record=record.fields,
            group=_id(record) if options.generated else _page(record),
            kind=record.kind or program_kind(record.fields["program"]),
        )
        for record in kept
    )
    return Split(examples, skipped=len(records) - len(kept))


def _has_context(record: Record, context: str) -> bool:
    return (
        bool(record.fields["evidence"]) if context == EVIDENCE else record.fields["ctx"] == "full"
    )


def _generate(wanted: SyntheticData) -> _Records:
    from trainables.tasks.finqa import synthetic

    made = {
        split: synthetic.records(
            pool="finetuning",
            kinds=wanted.kinds,
            count=getattr(wanted, split),
            seed=wanted.seed,
            split=split,
        )
        for split in SPLITS
    }
    return {
        split: [record_from(value, where=f"generated {split}") for value in values]
        for split, values in made.items()
    }


def _read(options: Options) -> _Records:
    records: _Records = {split: [] for split in SPLITS}
    faults: list[str] = []
    for split in files_read(options.asked, has_report=bool(options.report)):
        path = getattr(options, split)
        try:
            records[split] = read_records(path) if path else []
        except InputError as error:
            faults += error.messages
    if faults:
        raise InputError(faults)
    if not options.report and options.asked != "train":
        halves = halve(records["selection"], _page, file=str(options.selection))
        records["selection"], records["report"] = halves
    return records


def _check_programs(records: _Records, options: Options) -> None:
    if options.target != "program":
        return
    lacking = [each for split in SPLITS for each in records[split] if not each.fields["program"]]
    if lacking:
        raise InputError(
            f"{lacking[0].where}: {len(lacking)} records have no program (this is the first);"
            " use space.target: answer, or a file that has them."
        )


def _check_context(records: _Records, options: Options) -> None:
    faults = []
    for split in SPLITS:
        lacking = [each for each in records[split] if not _has_context(each, options.context)]
        left = len(records[split]) - len(lacking)
        if lacking and (left == 0 or not options.skip_missing_context):
            faults.append(_missing_context(lacking, options.context, split=split, left=left))
    if faults:
        raise InputError(faults)


def _missing_context(lacking: Sequence[Record], context: str, *, split: str, left: int) -> str:
    other = FULL if context == EVIDENCE else EVIDENCE
    skip = "set data.skip_missing_context: true to leave them out, or " if left else ""
    total = left + len(lacking)
    return (
        f"{lacking[0].where}: {len(lacking)} of the {total} records of the {split} split have no"
        f" {context} context (this is the first); {skip}use data.context: {other}."
    )
