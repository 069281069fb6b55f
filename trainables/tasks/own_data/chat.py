"""The task `chat`: the assistant's last turn of a conversation, on a user's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from trainables.errors import InputError, did_you_mean
from trainables.spec.checks import Check
from trainables.tasks.own_data.completion import Completion
from trainables.tasks.own_data.messages import (
    ASSISTANT,
    MESSAGES,
    TURN_COLUMNS,
    USER,
    Message,
    conversations,
)
from trainables.tasks.own_data.rows import Row
from trainables.tasks.own_data.table import Table
from trainables.tasks.task import Example, Prompt, Task, Turn

VERSION = "1"
LAST, ALL = LOSSES = ("last", "all")


def _loss_on(value: Any) -> str | None:
    return None if value in LOSSES else f"data.loss_on: got {value!r}.{did_you_mean(value, LOSSES)}"


@dataclass(frozen=True)
class Chat(Completion):
    """A row is a list of messages, or a question and its answer. The last turn is asked and judged;
    the loss is on it, or with `loss_on: all` on every turn of the assistant that follows a message.

    `prompt` writes the last message before the answer; `{input}` is what it says in the file.
    """

    name: ClassVar[str] = "chat"
    named_columns: ClassVar[tuple[str, ...]] = (*Completion.named_columns, MESSAGES)
    more_options: ClassVar[Mapping[str, Check]] = {"loss_on": _loss_on}
    knobs: ClassVar[tuple[str, ...]] = Task.knobs

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        return super().from_options({"stop": None, **options})

    @property
    def version(self) -> str:
        loss_on = self.more.get("loss_on", LAST)
        return f"chat-{VERSION}/{loss_on}/{self.options.stop!r}/{','.join(self._measured)}"

    @classmethod
    def prepared(cls, rows: Sequence[Row], columns: Mapping[str, str]) -> list[Row]:
        column = columns.get(MESSAGES, MESSAGES)
        is_chat = MESSAGES in columns or bool(rows and column in rows[0].values)
        both = [name for name in TURN_COLUMNS if name in columns]
        if is_chat and both:
            raise InputError(
                f"data.columns: {' and '.join(both)} would replace what the messages say; leave "
                f"{'them' if len(both) > 1 else 'it'} out."
            )
        return conversations(rows, column) if is_chat else list(rows)

    def prompt(self, example: Example) -> Prompt:
        """What is too long is not shortened: each turn may answer another."""
        learns_all = self.more.get("loss_on") == ALL
        turns = tuple(
            Turn(
                each["role"],
                each["content"],
                is_learned=learns_all and each["role"] == ASSISTANT and at > 0,
            )
            for at, each in enumerate(self._messages(example)[:-2])
        )
        return replace(super().prompt(example), cuts=(), turns=turns)

    def data_digest(self, split: str) -> str:
        read = [*self.text.columns, self._column]
        return self._table.digest(split, [name for name in read if name in self._table.columns])

    def _messages(self, example: Example) -> list[Message]:
        found: list[Message] | None = example.record["columns"].get(self._column)
        if found is not None:
            return found
        record = example.record
        asked = {"role": USER, "content": record["question"]}
        return [asked, {"role": ASSISTANT, "content": record["target"]}]

    def _values(self, example: Example) -> dict[str, Any]:
        return {**super()._values(example), "input": self._messages(example)[-2]["content"]}

    def _faults(self, table: Table) -> list[str]:
        if self._column in table.columns and self._column in self.text.columns:
            return [f"space.prompt: {{{self._column}}} shows the answer, as the last message."]
        return super()._faults(table)

    @property
    def _column(self) -> str:
        return self.options.columns.get(MESSAGES, MESSAGES)
