"""Comparison: the answers of several models side by side, as a report and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.formatting import format_metric
from orchestrator.predict.models import ModelUnderTest
from orchestrator.predict.worker_process import ModelAnswers
from orchestrator.reporting.document import Block, Paragraph, Report, Section, Table
from orchestrator.reporting.sections.headline import score_header, score_text
from trainables.spec.metric import MetricSpec
from trainables.tasks.task import Example, Task

RIGHT, WRONG = "right", "wrong"
HEAD_LINES, TAIL_LINES = 6, 8  # of a shortened prompt
LONGEST_LINE, LINE_END = 240, 60  # characters of a shortened line; those from its end


@dataclass(frozen=True)
class Answered:
    """One model with its answers; `noted`: the rows of the trial's predictions by question id."""

    model: ModelUnderTest
    answers: ModelAnswers
    noted: Mapping[str, Mapping[str, Any]]

    def differs(self, at: int) -> bool:
        """Whether the answer to question `at` differs from the one that the sweep recorded."""
        row = self.answers.rows[at]
        noted = self.noted.get(str(row["id"]))
        return noted is not None and noted.get("prediction") != row["prediction"]


@dataclass(frozen=True)
class Comparison:
    """Questions of a split with the answers of several models."""

    task: Task
    split: str
    questions: Sequence[tuple[int, Example]]  # with their places in the split
    answered: Sequence[Answered]


def json_lines(found: Comparison) -> Iterator[dict[str, Any]]:
    """One object per question, then one with the metrics of each model over all questions."""
    for at, (place, example) in enumerate(found.questions):
        yield {
            "id": example.id,
            "index": place,
            "split": found.split,
            "question": example.record.get("question"),
            "prompt": found.answered[0].answers.prompts[at],
            "gold": found.task.gold(example),
            "answers": [_answer_json(found, each, at) for each in found.answered],
        }
    yield {
        "summary": {
            "task": found.task.name,
            "version": found.task.version,
            "split": found.split,
            "questions": len(found.questions),
            "models": [_model_json(found, each) for each in found.answered],
        }
    }


def report(found: Comparison, *, whole_prompt: bool = False) -> Report:
    """One section per question, then one with the metrics over all questions."""
    sections = [
        Section(_heading(found, at), _question(found, at, whole_prompt))
        for at in range(len(found.questions))
    ]
    name = f"{found.task.name}, {found.split} split"
    return Report(name, [*sections, Section(_total_heading(found), _total(found))])


def shortened(prompt: str) -> str:
    """The first and last lines of a prompt and a note in between; long lines are shortened."""
    lines = [_short_line(line) for line in prompt.splitlines()]
    left_out = len(lines) - HEAD_LINES - TAIL_LINES
    if left_out <= 1:
        return "\n".join(lines)
    note = f"[... {left_out} lines; --whole-prompt shows them ...]"
    return "\n".join([*lines[:HEAD_LINES], note, *lines[-TAIL_LINES:]])


def _answer_json(found: Comparison, each: Answered, at: int) -> dict[str, Any]:
    row, example = each.answers.rows[at], found.questions[at][1]
    scores = {name: value for name, value in row.items() if name not in _NOT_SCORES}
    own = each.answers.prompts[at]
    noted = each.noted.get(example.id, {}).get("prediction")
    return {
        **_name_json(each.model),
        "prediction": row["prediction"],
        RIGHT: _is_right(found.task, row),
        "reason": found.task.reason(example, row["prediction"]),
        "scores": scores,
        "noted_prediction": noted,
        "prompt_cut": each.answers.cut[at],
        **({} if own == found.answered[0].answers.prompts[at] else {"prompt": own}),
    }


_NOT_SCORES = ("id", "kind", "question", "prediction", "gold", "slices")


def _model_json(found: Comparison, each: Answered) -> dict[str, Any]:
    differing = sum(map(each.differs, range(len(found.questions))))
    return {
        **_name_json(each.model),
        "configuration": dict(each.model.spec.knobs),
        "metrics": found.task.aggregate(each.answers.rows),
        RIGHT: _right(found.task, each),
        "other_than_noted": differing if each.noted else None,
    }


def _name_json(model: ModelUnderTest) -> dict[str, str]:
    return {"kind": model.kind, "model": model.name, "label": model.label}


def _heading(found: Comparison, at: int) -> str:
    place, example = found.questions[at]
    return f"Question {at + 1} of {len(found.questions)}: {example.id} (index {place})"


def _question(found: Comparison, at: int, whole_prompt: bool) -> list[Block]:
    example = found.questions[at][1]
    prompt = found.answered[0].answers.prompts[at]
    rows = [_row(found, each, at) for each in found.answered]
    return [
        Paragraph(f"\n{prompt if whole_prompt else shortened(prompt)}\n"),
        Paragraph(f"gold: {found.task.gold_text(example)}", strong=True),
        Table(["", "model", "configuration", "answer", "", "by the rule"], rows, words=6),
        *(Paragraph(text) for text in _notes(found, at)),
    ]


def _row(found: Comparison, each: Answered, at: int) -> tuple[str, ...]:
    row = each.answers.rows[at]
    return (
        each.model.kind,
        each.model.name,
        each.model.label,
        row["prediction"] or "(nothing)",
        _verdict_text(found.task, row),
        found.task.reason(found.questions[at][1], row["prediction"]),
    )


def _notes(found: Comparison, at: int) -> Iterator[str]:
    for each in found.answered:
        who = f"{each.model.kind} {each.model.name}"
        if each.answers.prompts[at] != found.answered[0].answers.prompts[at]:
            yield f"{who} was asked in its own prompt, which differs; --json has it."
        if each.answers.cut[at]:
            limit = each.model.spec.knobs["sequence_length"]
            yield f"{who}: the prompt was cut to fit into {limit} tokens."
        if each.differs(at):
            noted = each.noted[found.questions[at][1].id].get("prediction")
            yield f"{who}: the sweep noted another answer, {noted!r}; another device or version?"


def _total_heading(found: Comparison) -> str:
    count = len(found.questions)
    return f"Over {count} question{'' if count == 1 else 's'}"


def _total(found: Comparison) -> list[Block]:
    """Also how many answers are right, which a share does not say."""
    count = len(found.questions)
    measured = [found.task.aggregate(each.answers.rows) for each in found.answered]
    metrics = [metric for metric in _of_all_questions(found.task) if metric.name in measured[0]]
    rows = [
        (
            each.model.kind,
            each.model.name,
            each.model.label,
            *_right_cells(found, each),
            *(_value_text(found, metric, values.get(metric.name)) for metric in metrics),
        )
        for each, values in zip(found.answered, measured, strict=True)
    ]
    right = [RIGHT] if found.task.used_metrics.verdict else []
    titles = [
        score_header(metric) if metric == found.task.used_metrics.primary else metric.title
        for metric in metrics
    ]
    headers = ["", "model", "configuration", *right, *titles]
    blocks: list[Block] = [Table(headers, rows, words=3)]
    for each in found.answered:
        differing = sum(map(each.differs, range(count)))
        if differing:
            text = f"{each.model.kind} {each.model.name}: {differing} of {count} answers are not"
            blocks.append(Paragraph(f"{text} those that its sweep noted.", strong=True))
    return blocks


def _of_all_questions(task: Task) -> list[MetricSpec]:
    return [metric for metric in task.used_metrics.specs if not metric.among]


def _value_text(found: Comparison, metric: MetricSpec, value: float | None) -> str:
    """The primary metric has its interval, the others have none."""
    if metric != found.task.used_metrics.primary:
        return format_metric(metric, value)
    return score_text(metric, value, len(found.questions))


def _right_cells(found: Comparison, each: Answered) -> list[str]:
    """How many answers are right; no cell if the task's answers are not right or wrong."""
    right = _right(found.task, each)
    return [] if right is None else [f"{right} of {len(found.questions)}"]


def _verdict_text(task: Task, row: Mapping[str, Any]) -> str:
    """Right or wrong, or else the value of the primary metric of this question."""
    is_right, primary = _is_right(task, row), task.used_metrics.primary
    if is_right is None:
        return format_metric(primary, row.get(primary.per_question_key))
    return RIGHT if is_right else WRONG


def _is_right(task: Task, row: Mapping[str, Any]) -> bool | None:
    verdict = task.used_metrics.verdict
    return None if verdict is None else bool(row[verdict.per_question_key])


def _right(task: Task, each: Answered) -> int | None:
    if task.used_metrics.verdict is None:
        return None
    return sum(bool(_is_right(task, row)) for row in each.answers.rows)


def _short_line(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE - LINE_END]} [...] {line[-LINE_END:]}"
