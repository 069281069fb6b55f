"""The loss on a file of prompts and completions is that of TRL's SFTTrainer on the same file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import make_spec, shared_base
from tests.trainables.tasks.own_data.own_file import write_csv
from trainables.data.batches import collate
from trainables.data.encoding import encode
from trainables.evaluation.loss import summed_loss
from trainables.tasks.registry import make_task

TOLERANCE = 1e-4
ROWS = [
    ("Sentence: sales rose by 5 %\nSentiment:", " positive"),
    ("Sentence: the company has 30 stores, as before.\nSentiment:", " neutral, as nothing changes"),
    ("Q: what fell?\n", "profit\nand sales"),
    ("Say it: ", "ünïcode 漢字"),
]


@pytest.mark.slow
def test_the_loss_is_that_of_trl(tiny_llama: Path, tmp_path: Path) -> None:
    spec = make_spec(tiny_llama)
    base = shared_base(spec)
    file = write_csv(tmp_path / "own.csv", ROWS, columns=("prompt", "completion"))
    options = {"train": str(file), "asked": "train", "stop": None, "selection": None}
    task = make_task("completion", options)
    encoded = encode(task, task.load("train"), base.tokenizer, sequence_length=256)
    batch = collate(encoded, range(len(encoded)), pad_token=base.pad_token)
    tokens = sum(map(len, encoded.completions))
    ours = summed_loss(base.model, batch, base).item() / tokens
    assert ours == pytest.approx(_of_trl(base, file, tmp_path / "trl"), abs=TOLERANCE)


def _of_trl(base: Any, file: Path, folder: Path) -> float:
    from datasets import Dataset  # type: ignore[import-untyped]
    from trl import SFTConfig, SFTTrainer

    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    data = Dataset.from_list(rows)
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_eval_batch_size=len(rows),
        completion_only_loss=True,
        report_to=[],
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    trainer = SFTTrainer(
        model=base.model,
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        processing_class=base.tokenizer,
    )
    return float(trainer.evaluate()["eval_loss"])
