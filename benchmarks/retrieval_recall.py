"""Prints the tables of docs/retrieval.md: how much of the gold evidence each retriever finds.

    python -m benchmarks.retrieval_recall finqa data/finqa/dev.json
    python -m benchmarks.retrieval_recall tatqa data/tatqa/tatqa_dataset_dev.json

With `--encoder FOLDER` also for the vectors of that model. No model is asked: the questions of the
file are searched with every retriever, k and scope.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trainables.spec.rows.task_knobs import SCOPES
from trainables.tasks.registry import make_task
from trainables.tasks.retrieval.page_retrieval import recall_rates
from trainables.tasks.retrieval.retrievers import EMBEDDING, RETRIEVERS

KS = (3, 5, 10)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("finqa", "tatqa"))
    parser.add_argument("file", help="one file of questions with gold evidence")
    parser.add_argument("--encoder", help="the folder of a model, for `embedding`")
    given = parser.parse_args(arguments)
    print("| retriever | scope | " + " | ".join(f"recall@{k}" for k in KS), end=" | ")
    print(" | ".join(f"all facts@{k}" for k in KS), f"| words@{KS[-1]} |")
    print("|---|---|" + "---:|" * (2 * len(KS) + 1))
    for row in rows(given.task, given.file, given.encoder):
        print("|", " | ".join(row), "|", flush=True)


def rows(task: str, file: str, encoder: str | None) -> Iterator[tuple[str, ...]]:
    """A row for each retriever and scope; the words are those of a mean prompt at the largest k."""
    section = {} if encoder is None else {"retrieve": {"encoder": encoder}}
    for scope in SCOPES:
        for retriever in RETRIEVERS if encoder else sorted({*RETRIEVERS} - {EMBEDDING}):
            found, complete = [], []
            for k in KS:
                knobs = {"retriever": retriever, "k": k, "scope": scope}
                rates, words = measured(task, file, {**section, **knobs})
                found.append(f"{rates['evidence_recall']:.1%}")
                complete.append(f"{rates['evidence_complete']:.1%}")
            yield retriever, scope, *found, *complete, f"{words:.0f}"


def measured(name: str, file: str, retrieval: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """The rates over the questions of the file, and the mean number of words of their prompts."""
    options = {"train": None, "selection": file, "report": file, "asked": "selection"}
    task = make_task(
        name,
        {
            **options,
            "context": "retrieved",
            **retrieval,
            **({"skip_missing_context": True} if name == "finqa" else {}),
        },
    )
    examples = task.load("selection")
    words = [len(task.prompt(example).text.split()) for example in examples]
    scores = [task.score(example, "") for example in examples]
    return recall_rates(scores), statistics.fmean(words)


if __name__ == "__main__":
    main()
