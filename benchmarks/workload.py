"""The work of the overhead benchmark: LoRA trials that are the same for all contenders."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = REPOSITORY / "base_models" / "small"
ALPHA = 16
BATCH_SIZE = 8
EVAL_BATCH_SIZE = 100
MAX_NEW_TOKENS = 4
WARMUP = 0.03
SEQUENCE_LENGTH = 128
SEED = 0


@dataclass(frozen=True)
class Workload:
    """Every rank with every learning rate: one epoch over the examples, then one evaluation.

    `slots` trials run at once, each on one CPU with one thread.
    """

    train_examples: int = 1000
    eval_questions: int = 200
    ranks: Sequence[int] = (4, 16)
    learning_rates: Sequence[float] = (5e-4, 1e-3, 2e-3, 4e-3)
    slots: int = 2

    @property
    def configurations(self) -> list[dict[str, Any]]:
        pairs = itertools.product(self.ranks, self.learning_rates)
        return [{"rank": rank, "learning_rate": rate} for rank, rate in pairs]

    @property
    def steps(self) -> int:
        """Optimizer steps of one trial."""
        return -(-self.train_examples // BATCH_SIZE)

    def space(self) -> dict[str, Any]:
        """The same work as a search space of this project, with one evaluation, at the end."""
        return {
            "task": "finqa",
            "data": {"generated": self._generated},
            "space": {
                "model": str(MODEL),
                "quantization": "none",
                "method": [{"lora": {"rank": list(self.ranks), "alpha": ALPHA}}],
                "learning_rate": list(self.learning_rates),
                "compute_dtype": "float32",
                "batch_size": BATCH_SIZE,
                "warmup": WARMUP,
                "prompt": "statements",
                "sequence_length": SEQUENCE_LENGTH,
                "seed": SEED,
            },
            "budget": {
                "train_examples": self.train_examples,
                "eval_examples": self.eval_questions,
            },
            "search": {"algorithm": "tpe", "trials": len(self.configurations)},
            "scheduler": "none",  # no trial is stopped early
            "resources": {"cpus_per_trial": 1, "concurrent_trials": self.slots},
            "execution": {"eval_batch_size": EVAL_BATCH_SIZE, "max_new_tokens": MAX_NEW_TOKENS},
        }

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> Workload:
        return cls(**json.loads(file.read_text()))

    @property
    def _generated(self) -> dict[str, Any]:
        return {
            "kinds": ["decline"],
            "train": self.train_examples,
            "selection": self.eval_questions,
            "report": 4,  # only this project has a report split
            "seed": 7,
        }


def write_prepared(workload: Workload, file: Path) -> None:
    """Tokenizes the work's data once, with the training examples in training order.

    Each split is a list of {prompt, completion, target}: token ids, token ids, text.
    """
    from transformers import AutoTokenizer

    from trainables.data.batches import training_order
    from trainables.data.encoding import encode
    from trainables.tasks.registry import make_task

    options = {**workload.space()["data"], "prompt": "statements", "target": "answer"}
    task, tokenizer = make_task("finqa", options), AutoTokenizer.from_pretrained(MODEL)
    prepared: dict[str, Any] = {}
    for split in ("train", "selection"):
        encoded = encode(task, task.load(split), tokenizer, sequence_length=SEQUENCE_LENGTH)
        prepared[split] = [
            {"prompt": prompt, "completion": completion, "target": task.target(example)}
            for prompt, completion, example in zip(
                encoded.prompts, encoded.completions, encoded.examples, strict=True
            )
        ]
    count = workload.train_examples
    order = training_order(count, seed=SEED, start=0, stop=count)
    prepared["train"] = [prepared["train"][index] for index in order]
    file.write_text(json.dumps(prepared))


def read_prepared(file: Path) -> Mapping[str, Any]:
    """Reads the file that `write_prepared` wrote."""
    prepared: dict[str, Any] = json.loads(file.read_text())
    return prepared
