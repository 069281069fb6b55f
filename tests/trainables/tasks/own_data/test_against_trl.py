"""The loss on a file of prompts and completions, or of conversations, is that of TRL's SFTTrainer
on the same file."""

from __future__ import annotations

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import make_spec, shared_base
from tests.trainables.tasks.own_data.own_file import write_csv
from trainables.data.batches import collate
from trainables.data.conversations import PLAIN
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


CHATS = [
    [("user", "sales rose by 5 %"), ("assistant", "positive")],
    [
        ("system", "Answer in one word.\nNo more."),
        ("user", "what fell?"),
        ("assistant", "profit\nand sales"),
        ("user", "And what rose?"),
        ("assistant", "ünïcode 漢字"),
    ],
    [("user", "1"), ("assistant", "one"), ("user", "2"), ("assistant", "two"), ("user", "3 and 4?"),
     ("assistant", " three, four ")],
]  # fmt: skip
LLAMA = (  # as Llama 3 writes it: contents are trimmed, and an end token ends each turn
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n' }}{% generation %}{{ message['content'] | trim }}{{ eos_token }}"
    "{% endgeneration %}{% else %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] | trim }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CHATML = (  # no token ends a turn, and a line break follows
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' }}{% generation %}{{ message['content'] + '<|im_end|>\n' }}"
    "{% endgeneration %}{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PHI = (  # the end token follows the last turn only
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n' }}{% generation %}{{ message['content'] + '<|end|>\n' }}"
    "{% endgeneration %}{% else %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% else %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}"
)


@pytest.mark.slow
def test_the_loss_is_that_of_trl(tiny_llama: Path, tmp_path: Path) -> None:
    base = shared_base(make_spec(tiny_llama))
    file = write_csv(tmp_path / "own.csv", ROWS, columns=("prompt", "completion"))
    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    ours = _loss(base, "completion", file, stop=None)
    theirs = _of_trl(base, rows, tmp_path / "trl", completion_only_loss=True)
    assert ours == pytest.approx(theirs, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("loss_on", ["last", "all"])
@pytest.mark.parametrize(
    "template", [LLAMA, CHATML, PHI, PLAIN], ids=["llama", "chatml", "phi", "plain"]
)
def test_the_loss_on_conversations_is_that_of_trl(
    template: str, loss_on: str, tiny_llama: Path, tmp_path: Path
) -> None:
    """TRL needs marks of what is learned in the template, and writes no beginning token itself."""
    base = _with_template(
        shared_base(make_spec(tiny_llama)), None if template == PLAIN else template
    )
    file = tmp_path / "own.jsonl"
    said = [[{"role": role, "content": text} for role, text in chat] for chat in CHATS]
    file.write_text("".join(f"{json.dumps({'messages': chat})}\n" for chat in said))
    ours = _loss(base, "chat", file, loss_on=loss_on)
    marked = _marked_plain() if template == PLAIN else template
    theirs = _of_trl(
        _with_template(base, marked),
        [{"messages": chat} for chat in said]
        if loss_on == "all"
        else [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in said],
        tmp_path / "trl",
        completion_only_loss=loss_on == "last",
        assistant_only_loss=loss_on == "all",
    )
    assert ours == pytest.approx(theirs, abs=TOLERANCE)


def _loss(base: Any, task_name: str, file: Path, **options: Any) -> float:
    """The mean loss of a file's counted tokens."""
    task = make_task(task_name, {"train": str(file), "asked": "train", **options})
    encoded = encode(task, task.load("train"), base.tokenizer, sequence_length=256)
    assert not encoded.too_long
    every = range(len(encoded))
    batch = collate(encoded, every, pad_token=base.pad_token)
    return float(summed_loss(base.model, batch, base)) / encoded.counted_tokens(every)


def _with_template(base: Any, template: str | None) -> Any:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = template
    return replace(base, tokenizer=tokenizer)


def _marked_plain() -> str:
    """The plain way as a template for TRL."""
    answer = "{{ 'Assistant: ' + message['content'] }}{{ eos_token }}"
    assert answer in PLAIN
    marked = (
        "{{ 'Assistant:' }}{% generation %}{{ ' ' + message['content'] }}{{ eos_token }}"
        "{% endgeneration %}"
    )
    return "{{ bos_token }}" + PLAIN.replace(answer, marked)


def _of_trl(base: Any, rows: list[dict[str, Any]], folder: Path, **settings: bool) -> float:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list(rows)
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_eval_batch_size=len(rows),
        report_to=[],
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        gradient_checkpointing=False,
        **settings,
    )
    trainer = SFTTrainer(
        model=copy.deepcopy(base.model),  # it replaces the model's forward
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        processing_class=base.tokenizer,
    )
    return float(trainer.evaluate()["eval_loss"])
