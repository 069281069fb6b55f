"""The shipped sentiment base: it loads, is what the script makes, and knows its sentences."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from base_models.sentiment import PROMPTS, Recipe, main
from base_models.sentiment_sentences import LABELS, draw


@pytest.mark.parametrize("prompt", PROMPTS)
def test_it_knows_the_sentiment_of_unseen_sentences(base_models: Path, prompt: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_models / "sentiment").eval()
    tokenizer = AutoTokenizer.from_pretrained(base_models / "sentiment")
    rng, right = random.Random("unseen"), 0
    for _ in range(20):
        sentence = draw(rng)
        ids = torch.tensor([tokenizer.encode(prompt.replace("{input}", sentence.text))])
        with torch.no_grad():
            token = model(input_ids=ids).logits[0, -1].argmax()
        right += tokenizer.decode(token).strip() != "" and f" {sentence.label}".startswith(
            tokenizer.decode(token)
        )
    assert right >= 18


def test_its_log_names_the_recipe_that_made_it(base_models: Path) -> None:
    log = (base_models / "sentiment" / "training.log").read_text().splitlines()
    assert json.loads(log[0].removeprefix("recipe ")) == asdict(Recipe())


def test_any_text_is_decoded_unchanged(base_models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_models / "sentiment")
    for text in ("Umsätze stiegen 漢字", "a\n\nb  c", *LABELS):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
def test_the_script_writes_a_model_that_loads(tmp_path: Path) -> None:
    main(["--steps", "2", "--output", str(tmp_path / "made")])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    assert model.num_parameters() == 902_016
