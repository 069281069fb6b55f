"""A commented space for a data file of one's own: `sweep --init SPACE.yaml --data FILE`."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import InputError
from trainables.tasks.own_data.messages import MESSAGES, TURN_COLUMNS, conversations, listed
from trainables.tasks.own_data.rows import Row, read_rows
from trainables.tasks.own_data.table import INSTRUCTION, USUAL_COLUMNS, input_of
from trainables.tasks.own_data.values import text_of

MODEL = "base_models/sentiment"
_MOST_LABELS = 20
_LABEL_CHARACTERS = 40  # a longer value is a text
_CHARACTERS_PER_TOKEN = 2.5  # few, so that the guess is long enough
_PROMPT_TOKENS = 32  # of the words around the input
_LONGEST_SEQUENCE = 2**14
_SHARE = 0.15  # of the rows, for each of selection and report


def starter_space(data: Path, *, name: str = "THIS_FILE") -> str:
    """The YAML text of a space for the data file, to be saved as `name`.

    Task, columns, labels and lengths are guessed from its rows. Raises InputError if it can't be
    read, or has no two columns of text.
    """
    rows = read_rows(data)
    if not rows:
        raise InputError(f"{data}: the file holds no rows.")
    return _text(data, rows, _guess(data, rows), name=name)


def write_starter_space(space: Path, data: Path) -> str:
    """Writes the space and returns what was guessed; raises InputError rather than overwrite."""
    if space.exists():
        raise InputError(f"--init: {space} is there already. Name another file, or remove it.")
    text = starter_space(data, name=str(space))
    try:
        space.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--init: {space} can't be written: {error.strerror}.") from error
    return text


@dataclass(frozen=True)
class _Guess:
    task: str
    columns: Mapping[str, str]
    labels: tuple[str, ...]
    sequence_length: int
    median: int
    longest: int


def _guess(data: Path, rows: Sequence[Row]) -> _Guess:
    has_messages = isinstance(listed(rows[0].values.get(MESSAGES)), list)
    rows = conversations(rows, MESSAGES) if has_messages else rows
    columns = dict(TURN_COLUMNS) if has_messages else _columns(data, rows)
    labels = () if has_messages else _labels(rows, columns["target"])
    is_chat = has_messages or (columns["input"] == INSTRUCTION and not labels)
    lengths = list(map(len, map(input_of(columns), rows)))
    answers = 0 if labels else max(len(text_of(row.values[columns["target"]])) for row in rows)
    tokens = (max(lengths) + answers) / _CHARACTERS_PER_TOKEN + _PROMPT_TOKENS
    return _Guess(
        task="chat" if is_chat else "classification" if labels else "completion",
        columns={MESSAGES: MESSAGES} if has_messages else columns,
        labels=labels,
        sequence_length=min(2 ** max(6, math.ceil(math.log2(tokens))), _LONGEST_SEQUENCE),
        median=round(statistics.median(lengths)),
        longest=max(lengths),
    )


def _columns(data: Path, rows: Sequence[Row]) -> dict[str, str]:
    """The columns of the input and the target."""
    names = [name for name in rows[0].values if _is_filled(rows, name)]
    if len(names) < 2:
        there = ", ".join(map(str, rows[0].values))
        raise InputError(
            f"{data}: needs two columns that are filled in every row, an input and what is to be "
            f"answered; it has {there}."
        )
    usual = next((pair for pair in USUAL_COLUMNS if set(pair) <= set(names)), None)
    target = usual[1] if usual else _target(rows, names)
    source = usual[0] if usual else max((n for n in names if n != target), key=_mean(rows))
    return {"input": source, "target": target}


def _is_filled(rows: Sequence[Row], name: str) -> bool:
    return all(text_of(row.values.get(name)).strip() for row in rows)


def _mean(rows: Sequence[Row]) -> Callable[[str], float]:
    """The mean length of a column's texts."""
    return lambda name: statistics.fmean(len(text_of(row.values[name])) for row in rows)


def _target(rows: Sequence[Row], names: Sequence[str]) -> str:
    """The column with the fewest different values that could be labels, else the last one."""
    counted = {name: len(_labels(rows, name)) for name in names}
    labelled = [name for name in names if counted[name]]
    return min(labelled, key=lambda name: counted[name]) if labelled else names[-1]


def _labels(rows: Sequence[Row], name: str) -> tuple[str, ...]:
    """The values of a column if they are few, short and repeated; else none."""
    counts = Counter(text_of(row.values[name]) for row in rows)
    is_label = (
        2 <= len(counts) <= min(_MOST_LABELS, len(rows) // 2)
        and max(map(len, counts)) <= _LABEL_CHARACTERS
    )
    return tuple(sorted(counts)) if is_label else ()


def _text(data: Path, rows: Sequence[Row], guess: _Guess, *, name: str) -> str:
    train = max(1, round(len(rows) * (1 - 2 * _SHARE)))
    is_chat = guess.task == "chat"
    asked = "input" if is_chat else guess.columns["input"]
    prompt = f"{{{asked}}}" + ("\nLabel:" if guess.labels else "")
    columns = ", ".join(f"{name}: {_yaml(column)}" for name, column in guess.columns.items())
    loss_on = "  loss_on: last  # or all: every turn of the assistant\n" if is_chat else ""
    labels = (
        f"  labels: {_yaml(list(guess.labels))}\n"
        "  # or what is written for each: {LABEL: [word, another word], ...}\n"
        if guess.labels
        else ""
    )
    metrics = (
        "[accuracy, macro_f1, mcc, not_followed_rate]"
        if guess.labels
        else "[exact_match, token_f1, rouge_l]"
    )
    answer = (
        "  answer: likelihood  # the likeliest label; generate: what it writes; a list tries both\n"
        if guess.labels
        else ""
    )
    return f"""\
# A sweep on {data.name}: {len(rows)} rows; guessed from them, to be corrected here.
#   see the plan:  python -m orchestrator.sweep {name} --dry-run
#   run it:        python -m orchestrator.sweep {name}        (again: resume it)
# docs/own_data.md explains each line.
task: {guess.task}
data:
  file: {_yaml(str(data))}
  split: {{selection: {_SHARE}, report: {_SHARE}, seed: 7}}  # by: COLUMN keeps its groups together
  columns: {{{columns}}}
{labels}{loss_on}  metrics: {metrics}  # the first one ranks
space:
  model: {MODEL}  # a small one that ships; then your own: a folder or a hub id
  quantization: [none, nf4]
  method:
    - lora: {{rank: [8, 16], learning_rate: {{log_uniform: [5.0e-4, 5.0e-3]}}}}
  prompt: {_yaml(prompt)}  # columns in braces; a list tries several
{answer}  batch_size: 8
  sequence_length: {guess.sequence_length}  # inputs have {guess.median} characters, the longest \
{guess.longest}
budget: {{train_examples: {2 * train}, eval_examples: {min(100, len(rows))}, seed: 7}}  # two epochs
search: {{algorithm: tpe, trials: 8}}
scheduler: {{asha: {{grace: 0.125, reduction: 4, within: [quantization]}}}}
"""


def _yaml(value: object) -> str:
    """A value as YAML on one line: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)
