"""Messages: conversations in a column of a file, as lists of a role and a content, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from trainables.errors import InputError, did_you_mean
from trainables.tasks.own_data.rows import Row, shortened

SYSTEM, USER, ASSISTANT = ROLES = ("system", "user", "assistant")
MESSAGES = "messages"  # the usual name of their column
TURN_COLUMNS = {"input": "input", "target": "target"}  # which `conversations` adds
Message = dict[str, str]


def conversations(rows: Sequence[Row], column: str) -> list[Row]:
    """The rows with their messages as lists, and TURN_COLUMNS: the last answer as the target, what
    comes before it as the input (`earlier_text`).

    Raises InputError with all rows whose messages can't be learned from: that are no list of a role
    and a content, or don't end with an answer of the assistant to a user.
    """
    faults: list[str] = []
    made = []
    for row in rows:
        messages = listed(row.values.get(column))
        wrong = list(_faults(row, column, messages))
        faults += wrong
        if not wrong:
            said = [{"role": each["role"], "content": each["content"]} for each in messages]
            values = {**row.values, column: said}
            values[TURN_COLUMNS["input"]] = earlier_text(said[:-1])
            values[TURN_COLUMNS["target"]] = said[-1]["content"]
            made.append(Row(values, row.place))
    if faults:
        raise InputError(shortened(faults))
    return made


def earlier_text(messages: Sequence[Message]) -> str:
    """Messages for a reader: a question alone as it is, else each with its role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{each['role'].capitalize()}: {each['content']}" for each in messages)


def listed(value: Any) -> Any:
    """The value, or what it holds as JSON: in CSV it is a text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _faults(row: Row, column: str, messages: Any) -> Iterator[str]:
    if column not in row.values:
        yield f"{row.place}: no column {column!r}; there are {', '.join(map(str, row.values))}."
        return
    if not isinstance(messages, list) or not messages:
        yield f"{row.place}: {column!r} holds {messages!r:.60}; needs a list of messages."
        return
    faults = [
        f"{row.place}: {column}[{at}] {fault}"
        for at, message in enumerate(messages)
        if (fault := _message_fault(message))
    ]
    yield from faults or _order_faults(row, column, [message["role"] for message in messages])


def _message_fault(message: Any) -> str:
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        return f"holds {message!r:.60}; needs an object with a role and a content."
    role, content = message["role"], message["content"]
    if role not in ROLES:
        return f"has the role {role!r}.{did_you_mean(str(role), ROLES)}"
    if not isinstance(content, str):
        return f"has the content {content!r:.60}; needs a text."
    return "" if content.strip() else f"of the {role} is empty. Fill it in, or remove the row."


def _order_faults(row: Row, column: str, roles: Sequence[str]) -> Iterator[str]:
    if ASSISTANT not in roles:
        yield f"{row.place}: {column} has no turn of the assistant, so there is nothing to learn."
    elif roles[-1] != ASSISTANT:
        yield (
            f"{row.place}: {column} ends with a turn of the {roles[-1]}; the last one has to be "
            "the assistant's, which is learned and judged. Remove what follows it."
        )
    elif roles[-2:-1] != [USER]:
        yield f"{row.place}: {column} has no user's turn right before the assistant's last one."
    elif SYSTEM in roles[1:]:
        yield f"{row.place}: {column} has a system's message that is not the first one."
