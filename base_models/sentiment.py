"""Pre-trains the base that can do a labelled task: `python -m base_models.sentiment`.

Each sequence is some generated sentences (`sentiment_sentences`), each in a prompt that asks for
its sentiment, with the answer; the loss is on all tokens, and five times on the answers. One thread
and one seed: the same machine produces the same weights.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from base_models.sentiment_sentences import LABELS, Sentence, draw
from trainables.tasks.financial.fpb import FPB

PROMPTS = (
    FPB.prompts["default"],
    "{input}\nAnswer with one of: positive, negative, neutral.\nAnswer:",
    "Sentence: {input}\nSentiment:",
    "{input}\nSentiment:",
    "Text: {input}\nLabel:",
)
BETWEEN = "\n\n"  # of two questions of a sequence
SPECIAL = ("<pad>", "<s>", "</s>")
_ANSWER_WEIGHT = 5.0


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights."""

    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 3
    vocabulary: int = 2048
    steps: int = 700
    sequences_per_step: int = 24
    most_questions: int = 3  # of a sequence
    learning_rate: float = 2e-3
    warm_up_steps: int = 50
    seed: int = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the base and writes its folder: weights, tokenizer, configuration, training.log."""
    parser = argparse.ArgumentParser(prog="python -m base_models.sentiment", description=__doc__)
    default = Path(__file__).parent / "sentiment"
    parser.add_argument("--output", type=Path, default=default, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="(default: %(default)s)")
    given = parser.parse_args(arguments)
    pretrain(Recipe(steps=given.steps), given.output)


def pretrain(recipe: Recipe, output: Path) -> None:
    """Trains by `recipe` and writes the model's folder, replacing files that are there."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer(recipe)
    model = _model(recipe, tokenizer)
    output.mkdir(parents=True, exist_ok=True)
    with (output / "training.log").open("w", encoding="utf-8") as log:
        log.write(f"recipe {json.dumps(asdict(recipe))}\n")
        log.write(f"parameters {model.num_parameters()}, torch {torch.__version__}\n")
        for line in _train(model, tokenizer, recipe):
            log.write(line + "\n")
            log.flush()
        log.write(f"held-out accuracy {_accuracy(model, tokenizer):.3f} of 300\n")
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def build_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE of generated sentences in their prompts; any text is decoded unchanged."""
    rng = random.Random(f"tokenizer/{recipe.seed}")
    texts = [_asked(draw(rng), rng)[0] for _ in range(20_000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *(f" {label}" for label in LABELS)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        clean_up_tokenization_spaces=False,
    )


def _asked(sentence: Sentence, rng: random.Random) -> tuple[str, str]:
    """A prompt with the sentence, and its answer."""
    return rng.choice(PROMPTS).replace("{input}", sentence.text), f" {sentence.label}"


def _model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def _train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> Iterator[str]:
    """Trains the model in place; yields the lines of training.log."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    rng, started = random.Random(f"sentences/{recipe.seed}"), time.monotonic()
    for step in range(1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate(step, recipe)
        ids, weights = _batch(tokenizer, recipe, rng)
        logits = model(input_ids=ids).logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        kept = weights[:, 1:].flatten()
        loss = (losses * kept).sum() / kept.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == recipe.steps:
            answers = losses.detach()[kept == _ANSWER_WEIGHT].mean().item()
            seconds = time.monotonic() - started
            yield f"step {step} loss {loss:.4f} of answers {answers:.4f} seconds {seconds:.0f}"


def _rate(step: int, recipe: Recipe) -> float:
    """The share of the peak learning rate: a linear warm-up, then a cosine."""
    if step < recipe.warm_up_steps:
        return step / recipe.warm_up_steps
    done = (step - recipe.warm_up_steps) / max(1, recipe.steps - recipe.warm_up_steps)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2


def _batch(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, rng: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and the weight of each in the loss, both (sequences, length); padding weighs 0."""
    rows = []
    for _ in range(recipe.sequences_per_step):
        parts: list[tuple[list[int], float]] = []
        prompt = rng.choice(PROMPTS)
        for number in range(rng.randrange(1, recipe.most_questions + 1)):
            sentence = draw(rng)
            text = (BETWEEN if number else "") + prompt.replace("{input}", sentence.text)
            parts += [(_ids(tokenizer, text), 1.0)]
            parts += [(_ids(tokenizer, f" {sentence.label}"), _ANSWER_WEIGHT)]
        end = tokenizer.eos_token_id
        rows.append([(token, w) for ids, w in parts for token in ids] + [(end, _ANSWER_WEIGHT)])
    length = max(map(len, rows))
    padded = [[*row, *[(tokenizer.pad_token_id, 0.0)] * (length - len(row))] for row in rows]
    ids = torch.tensor([[token for token, _ in row] for row in padded])
    return ids, torch.tensor([[weight for _, weight in row] for row in padded])


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def _accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """The share of 300 unseen sentences whose likeliest next token begins the right label."""
    rng, right = random.Random("held-out"), 0
    firsts = {label: _ids(tokenizer, f" {label}")[0] for label in LABELS}
    for _ in range(300):
        sentence = draw(rng)
        ids = _ids(tokenizer, PROMPTS[0].replace("{input}", sentence.text))
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        right += max(LABELS, key=lambda label: float(logits[firsts[label]])) == sentence.label
    return right / 300


if __name__ == "__main__":
    main()
