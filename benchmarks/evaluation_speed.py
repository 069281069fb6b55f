"""How fast are answers, against asking one question at a time?

    python -m benchmarks.evaluation_speed [--rounds 3] [--questions 200] [--eval-batch 100]

The baseline of written answers is transformers' `generate` with one prompt at a time; of answers by
likelihood, a forward pass for each label of each question. Both on small bases that ship with the
project, in float32 on one CPU thread, with 0 and with 8 shots, the baseline and this project's
evaluation by turns. Prints medians of CPU seconds (of the whole process, so that other programs
count little) and their ratio, and ends with an error if an answer differs.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from base_models.sentiment_sentences import draw
from benchmarks.workload import REPOSITORY
from trainables.data.encoding import Encoded, encode
from trainables.data.shots import shots_for
from trainables.evaluation.evaluate import answer
from trainables.evaluation.generation import EndOfLine
from trainables.models.base import Base, load_base
from trainables.spec.knobs import canonical
from trainables.spec.trial_spec import Budget, Execution, TrialSpec
from trainables.tasks.registry import make_task
from trainables.tasks.task import Answering, Task

TRAIN_EXAMPLES = 200
SEQUENCE_LENGTH = 2048
MAX_NEW_TOKENS = 32
SHOTS = (0, 8)


@dataclass(frozen=True)
class Asked:
    """A base, a task with its encoded questions, and how they are asked."""

    title: str
    base: Base
    task: Task
    encoded: Encoded
    execution: Execution


@dataclass
class Case:
    """The questions of one row of the table, and the seconds of each round."""

    asked: Asked
    shots: int
    one_by_one: list[float] = field(default_factory=list)
    evaluated: list[float] = field(default_factory=list)

    @property
    def row(self) -> str:
        tokens = sum(map(len, self.asked.encoded.prompts)) / len(self.asked.encoded)
        alone, here = median(self.one_by_one), median(self.evaluated)
        cells = [self.asked.title, str(self.shots), f"{tokens:.0f}"]
        return " | ".join(
            ["", *cells, f"{alone:.2f} s", f"{here:.2f} s", f"{alone / here:.1f}", ""]
        )


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    execution = Execution(eval_batch_size=given.eval_batch, max_new_tokens=MAX_NEW_TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        found = list(cases(Path(folder), execution, given.questions))
        for number in range(given.rounds):
            for case in found:
                measure(case)
            print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
    print(report(found))
    return 0


def report(measured: Sequence[Case]) -> str:
    """The table, with medians over the rounds."""
    head = "| answers (base) | shots | tokens of a prompt | one by one | here | ratio |"
    return "\n".join([head, "|---|--:|--:|--:|--:|--:|", *(case.row.strip() for case in measured)])


def cases(folder: Path, execution: Execution, questions: int) -> Iterator[Case]:
    """The rows of the table, on files that are written into the folder."""
    rows = TRAIN_EXAMPLES + questions
    sentences = _sentences(rows)
    split = {"selection": questions / rows, "report": 0.01, "seed": 7}
    labelled = _file(folder / "labelled.csv", [(text, label) for text, label in sentences])
    continued = _file(folder / "continued.csv", [_halves(text) for text, _ in sentences])
    for title, model, task, options in (
        ("a number is written", "small", "finqa", _statements(questions)),
        ("a label is written", "sentiment", "classification", {"file": labelled, "split": split}),
        (
            "the likeliest of 3 labels",
            "sentiment",
            "classification",
            {"file": labelled, "split": split, "answer": "likelihood"},
        ),
        (
            "half a sentence is written",
            "sentiment",
            "completion",
            {"file": continued, "split": split},
        ),
    ):
        base = _base(model)
        for shots in SHOTS:
            made = make_task(task, options)
            asked = Asked(f"{title} ({model})", base, made, _encoded(made, base, shots), execution)
            yield Case(asked, shots)


def measure(case: Case) -> None:
    """Adds one round of both ways to the case. Raises SystemExit if an answer differs."""
    expected, seconds = _timed(lambda: answers_one_by_one(case.asked))
    case.one_by_one.append(seconds)
    found, seconds = _timed(lambda: answers_evaluated(case.asked))
    case.evaluated.append(seconds)
    different = sum(one != other for one, other in zip(expected, found, strict=True))
    if different:
        raise SystemExit(f"{case.asked.title}, {case.shots} shots: {different} answers differ.")


def answers_one_by_one(asked: Asked) -> list[str]:
    """The baseline: no batches, and each prompt computed for each of its answers."""
    is_written = asked.task.answering is Answering.GENERATION
    one = _written if is_written else _likeliest
    with torch.no_grad():
        return [one(asked, at) for at in range(len(asked.encoded))]


def answers_evaluated(asked: Asked) -> list[str]:
    """The answers of this project's evaluation."""
    rows, _ = answer(
        asked.base.model,
        asked.base,
        task=asked.task,
        encoded=asked.encoded,
        asked=range(len(asked.encoded)),
        execution=asked.execution,
    )
    return [str(row["prediction"]) for row in rows]


def _timed(work: Callable[[], list[str]]) -> tuple[list[str], float]:
    begun = time.process_time()
    found = work()
    return found, time.process_time() - begun


def _written(asked: Asked, at: int) -> str:
    prompt = torch.tensor([asked.encoded.prompts[at]])
    ids = asked.base.model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=asked.execution.max_new_tokens,
        stopping_criteria=[EndOfLine(asked.base)],
    )
    text = asked.base.tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True)
    return str(text).strip().partition("\n")[0].rstrip()


def _likeliest(asked: Asked, at: int) -> str:
    scores = {}
    prompt = asked.encoded.prompts[at]
    for choice in asked.encoded.choices[at]:
        ids = torch.tensor([[*prompt, *choice.tokens]])
        places = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        logits = asked.base.model(input_ids=ids, use_cache=False, logits_to_keep=places).logits[0]
        each = logits.log_softmax(-1).gather(1, torch.tensor(choice.tokens)[:, None])
        scores[choice.text] = float(each.sum())
    return max(scores, key=lambda text: scores[text])


def _statements(questions: int) -> dict[str, Any]:
    sizes = {"train": TRAIN_EXAMPLES, "selection": questions, "report": 1}
    kinds = ["latest", "prior", "change"]
    return {"generated": {"kinds": kinds, **sizes, "seed": 7}, "prompt": "statements"}


def _sentences(count: int) -> list[tuple[str, str]]:
    """Different sentences with their labels."""
    rng = random.Random(7)
    found: dict[str, str] = {}
    while len(found) < count:
        sentence = draw(rng)
        found[sentence.text] = sentence.label
    return list(found.items())


def _halves(text: str) -> tuple[str, str]:
    words = text.split()
    return " ".join(words[: len(words) // 2]), " " + " ".join(words[len(words) // 2 :])


def _file(file: Path, rows: Sequence[tuple[str, str]]) -> str:
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("sentence", "label"), *rows])
    return str(file)


def _base(name: str) -> Base:
    folder = str(REPOSITORY / "base_models" / name)
    spec = TrialSpec(
        role="trial",
        knobs=canonical({"model": folder, "compute_dtype": "float32"}),
        model_digest=folder,
        task="finqa",
        task_identity={},
        task_options={},
        budget=Budget(train_examples=1, eval_examples=1),
        model_source=folder,
    )
    return load_base(spec, device="cpu")


def _encoded(task: Task, base: Base, shots: int) -> Encoded:
    knobs: dict[str, Any] = {"shots": shots, "shot_selection": "balanced", "shot_seed": 0}
    return encode(
        task,
        task.load("selection"),
        base.tokenizer,
        sequence_length=SEQUENCE_LENGTH,
        shots=shots_for(knobs, task),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation_speed",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--questions", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--eval-batch", type=int, default=100, help="(default: %(default)s)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
