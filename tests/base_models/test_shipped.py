"""The shipped bases: they load, equal what the script produces, and reach their logs' accuracy."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from base_models.pretrain import RECIPES, main, prompt
from base_models.tokenizer import build
from trainables.tasks.finqa import synthetic
from trainables.tasks.finqa.prompts import PROMPTS
from trainables.tasks.prompts.page_layout import render_values
from trainables.tasks.prompts.templates import load_template

SIZES = sorted(RECIPES)


@pytest.mark.parametrize("size", SIZES)
def test_a_shipped_base_answers_what_it_was_trained_on(base_models: Path, size: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_models / size).eval()
    tokenizer = AutoTokenizer.from_pretrained(base_models / size)
    pages = synthetic.pages(pool="finetuning", seed=5, split="report", rows=(3,))
    right = 0
    for _, page in zip(range(20), pages, strict=False):
        question = synthetic.KINDS["change"](page.items[0], *page.cells[0])
        ids = torch.tensor([tokenizer.encode(prompt(page, question.text))])
        with torch.no_grad():
            answer = tokenizer.decode(model(input_ids=ids).logits[0, -1].argmax())
        right += answer == f" {question.exe_ans:g}"

    assert right >= 17


@pytest.mark.parametrize("size", SIZES)
def test_a_shipped_bases_log_names_the_recipe_that_made_it(base_models: Path, size: str) -> None:
    first, *_ = (base_models / size / "training.log").read_text(encoding="utf-8").splitlines()

    assert json.loads(first.removeprefix("recipe ")) == asdict(RECIPES[size])


@pytest.mark.parametrize("size", SIZES)
def test_a_shipped_tokenizer_is_the_one_that_the_script_builds(
    base_models: Path, size: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_models / size)

    assert tokenizer.get_vocab() == build().get_vocab()
    assert tokenizer.pad_token == "<pad>"


def test_the_bases_are_trained_on_the_very_prompt_that_fine_tuning_uses() -> None:
    page = next(synthetic.pages(pool="pretraining", seed=0))
    question = "what was the change in revenue?"
    record = {
        "question": question,
        "pre_text": page.pre_text,
        "table": page.table,
        "post_text": page.post_text,
    }
    filled = load_template("statements", PROMPTS).fill(render_values(record, context="full"))

    assert prompt(page, question) == "".join(filled.pieces) + "\n" + filled.reply


def test_the_shipped_bases_differ_in_size_and_fit_in_8_megabytes(base_models: Path) -> None:
    sizes = [(base_models / size / "model.safetensors").stat().st_size for size in SIZES]
    files = [path for path in base_models.rglob("*") if path.is_file()]

    assert sizes[0] > 2 * sizes[1]
    assert sum(path.stat().st_size for path in files) <= 8_000_000


@pytest.mark.slow
def test_the_script_writes_a_model_that_loads_and_makes_it_again_from_its_seed(
    tmp_path: Path,
) -> None:
    for name in ("first", "second"):
        main(["small", "--steps", "2", "--output", str(tmp_path / name)])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second")]

    assert weights[0] == weights[1]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "first").config.model_type == "llama"
