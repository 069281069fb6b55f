"""OwnTask: what the tasks on a user's own files have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from trainables.errors import InputError
from trainables.hub_data import HubData, resolved_commit
from trainables.metrics import registry as metrics
from trainables.metrics.metric import Metric
from trainables.spec.checks import Check
from trainables.spec.metric import TaskMetrics
from trainables.tasks.own_data.options import COLUMNS, Options, parse_options
from trainables.tasks.own_data.prompt_text import PromptText, load_prompt_text
from trainables.tasks.own_data.rows import Row, missing_columns, read_rows
from trainables.tasks.own_data.table import Table, found_columns, hub_data, read_table
from trainables.tasks.own_data.values import text_of
from trainables.tasks.task import LINE_BREAK, Example, Prompt, Task

_MOST_NEW_TOKENS = 512


@dataclass(frozen=True)
class OwnTask(Task):
    """A task on own files; a subclass says what an answer is, and how it is judged."""

    unit: ClassVar[str] = "examples"
    rule_version: ClassVar[str] = "1"
    loads_one_split: ClassVar[bool] = True
    kind: ClassVar[str]  # of its answers, in trainables.metrics.registry.KINDS
    default_metrics: ClassVar[tuple[str, ...]]
    unread_options: ClassVar[tuple[str, ...]] = ()
    named_columns: ClassVar[tuple[str, ...]] = COLUMNS  # the keys of the option `columns`
    more_options: ClassVar[Mapping[str, Check]] = {}  # of a subclass, beside those of Options

    options: Options
    text: PromptText
    _measured: Mapping[str, Metric] = field(repr=False)
    more: Mapping[str, Any] = field(default_factory=dict)  # the values of `more_options`

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Raises InputError with all that is wrong in the options."""
        faults: list[str] = []
        parsed = text = None
        more = {name: value for name, value in options.items() if name in cls.more_options}
        try:
            parsed = parse_options(
                _without(options, more),
                without=cls.unread_options,
                named_columns=cls.named_columns,
                others=tuple(name for name in cls.more_options if name not in cls.knobs),
            )
        except InputError as error:
            faults += error.messages
        faults += [fault for name in more if (fault := cls.more_options[name](more[name]))]
        try:
            text = load_prompt_text(str(options.get("prompt", "default")), cls.prompts)
        except InputError as error:
            faults += error.messages
        if "metrics" in options:
            faults += metrics.metric_faults(cls.kind, options["metrics"])
        if faults or parsed is None or text is None:
            raise InputError(faults)
        chosen = parsed.metrics or cls.default_metrics
        return cls(parsed, text, metrics.find_metrics(cls.kind, chosen), more)

    @classmethod
    def pinned(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        name, revision = options.get("hub"), options.get("revision")
        if not isinstance(name, str):
            return dict(options)
        return {**options, "revision": resolved_commit(name, str(revision or "main"))}

    @property
    def hub_data(self) -> HubData | None:
        return hub_data(self.options)

    @classmethod
    def metrics_of(cls, options: Mapping[str, Any]) -> TaskMetrics:
        return metrics.task_metrics(cls.kind, options.get("metrics"), cls.default_metrics)

    @property
    def used_metrics(self) -> TaskMetrics:
        return metrics.declared(self.kind, self._measured)

    @classmethod
    def prepared(cls, rows: Sequence[Row], columns: Mapping[str, str]) -> list[Row]:
        """The rows that count, made of those of a file; `columns` is the option of that name.

        Raises InputError with all that is wrong with them.
        """
        del columns
        return list(rows)

    @classmethod
    def read_gold(cls, path: str | Path) -> list[Example]:
        """The rows of a file with columns of the usual names; an id is `FILE:LINE` or its `id`."""
        rows = cls.prepared(read_rows(path), {})
        columns = {"id": "id"} if rows and "id" in rows[0].values else {}
        found = found_columns(rows, columns)
        missing = list(missing_columns(rows, found.values()))
        if missing:
            raise InputError(missing)
        return [
            Example(
                id=text_of(row.values[found["id"]]) if "id" in found else Path(row.place).name,
                record={
                    "question": text_of(row.values[found["input"]]),
                    "target": text_of(row.values[found["target"]]),
                },
                group="",
            )
            for row in rows
        ]

    @classmethod
    def aggregate(cls, scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        return metrics.values(cls.kind, scores)

    @property
    def prompt_digest(self) -> str:
        return self.text.digest

    @property
    def stop(self) -> str | None:
        return self.options.stop

    @property
    def target_end(self) -> str:
        """Nothing after a target of one line: its end token ends it."""
        return "" if self.stop in (None, LINE_BREAK) else str(self.stop)

    @property
    def max_new_tokens(self) -> int:
        """As many as the longest target has characters, up to 512; the preflight tells whether
        targets need more, which `execution.max_new_tokens` gives."""
        splits = self._table.splits.values()
        longest = max((len(self.target(each)) for split in splits for each in split), default=0)
        return min(max(longest + len(self.target_end), 8), _MOST_NEW_TOKENS)

    def load(self, split: str) -> list[Example]:
        """Reads and checks all files at the first call, to report all faults together."""
        return list(self._table.splits[split])

    def prompt(self, example: Example) -> Prompt:
        return self.text.fill(self._values(example))

    def gold(self, example: Example) -> str:
        return str(example.record["target"])

    def data_digest(self, split: str) -> str:
        return self._table.digest(split, [c for c in self.text.columns if c in self._table.columns])

    def facts(self, split: str) -> dict[str, str | int]:
        return {"examples": len(self._table.splits[split])}

    def _values(self, example: Example) -> dict[str, Any]:
        """What the prompt may show: the columns of the row, and `input`."""
        record = example.record
        return {**record["columns"], "input": record["question"]}

    def _names(self, example: Example) -> list[str]:
        """Those of `_values`."""
        return list(self._values(example))

    def _faults(self, table: Table) -> list[str]:
        """What is wrong with the rows for this task."""
        by_file: dict[str, list[Row]] = {}
        for example in (each for split in table.splits.values() for each in split):
            row = Row(dict.fromkeys(self._names(example)), example.record["place"])
            by_file.setdefault(row.place.rpartition(":")[0], []).append(row)
        shown = self.text.columns
        return [
            fault
            for rows in by_file.values()
            for fault in missing_columns(rows, shown, why=", which the prompt shows")
        ]

    def _prompt_faults(self, table: Table) -> list[str]:
        """What is wrong with the prompt for files with these columns."""
        first = next((each for split in table.splits.values() for each in split), None)
        if first is None:
            return []
        faults = self.text.faults(self._names(first))
        if table.target_column in self.text.columns:
            faults.append(
                f"space.prompt: {{{table.target_column}}} shows the answer; it is the column of "
                "the target."
            )
        return faults

    @cached_property
    def _table(self) -> Table:
        table = self._read
        of_prompt = self._prompt_faults(table)
        of_rows = table.faults or ([] if of_prompt else self._faults(table))
        if of_prompt or of_rows:
            raise InputError([*of_prompt, *of_rows])
        return table

    @cached_property
    def _read(self) -> Table:
        columns = self.options.columns
        return read_table(self.options, prepared=lambda rows: self.prepared(rows, columns))


def _without(options: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}
