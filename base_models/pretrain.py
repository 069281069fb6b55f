"""Pre-trains an embedded base model: `python -m base_models.pretrain small|large`.

Each sequence is the page of one invented company with several questions about it, in the wording of
the fine-tuning prompt; the loss is on the answers only. The first steps ask for cells only, later
ones for every kind of BASE_KINDS. It uses one thread and one seed: the same machine produces the
same weights.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from base_models.initialisation import HEAD_SIZE, ROPE_THETA, initialise
from base_models.tokenizer import build
from trainables.tasks.finqa import synthetic
from trainables.tasks.prompts.page_layout import table_statements

CELL_KINDS = ("latest", "prior")
BASE_KINDS = (*CELL_KINDS, "change", "total", "percent_change", "rose")
NEW_KINDS = ("decline", "fell")
_WEIGHTS = {"change": 3, "total": 3, "percent_change": 2}  # relative frequencies of kinds; else 1
_IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a base's weights; learning rates are peak values."""

    hidden_size: int
    intermediate_size: int
    layers: int
    steps: int
    cell_steps: int = 100  # the first steps, with questions of CELL_KINDS only
    pages_per_step: int = 12
    questions_per_page: int = 12
    matrix_learning_rate: float = 0.005  # of Muon, for the layers' matrices
    vector_learning_rate: float = 0.002  # of AdamW, for embeddings and norms
    warm_up_steps: int = 50
    decay_from: float = 0.6  # share of the steps before the linear decay to 0.02 of the peak
    label_smoothing: float = 0.1  # an overconfident base is harder to fine-tune
    seed: int = 0


RECIPES = {
    "small": Recipe(hidden_size=64, intermediate_size=256, layers=2, steps=1000),
    "large": Recipe(hidden_size=128, intermediate_size=384, layers=3, steps=800),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains one base and writes its folder: weights, tokenizer, configuration and training.log."""
    parser = argparse.ArgumentParser(prog="python -m base_models.pretrain", description=__doc__)
    parser.add_argument("size", choices=sorted(RECIPES))
    parser.add_argument("--output", type=Path, help="default: base_models/SIZE")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    given = parser.parse_args(arguments)
    recipe = RECIPES[given.size]
    steps = recipe.steps if given.steps is None else given.steps
    recipe = Recipe(**{**asdict(recipe), "steps": steps, "seed": given.seed})
    pretrain(recipe, given.output or Path(__file__).parent / given.size)


def pretrain(recipe: Recipe, output: Path) -> None:
    """Trains by `recipe` and writes the model's folder, replacing files that are there."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    tokenizer = build()
    model = _model(recipe, tokenizer)
    output.mkdir(parents=True, exist_ok=True)
    with (output / "training.log").open("w", encoding="utf-8") as log:
        log.write(f"recipe {json.dumps(asdict(recipe))}\n")
        log.write(f"parameters {model.num_parameters()}, torch {torch.__version__}\n")
        for line in _train(model, tokenizer, recipe):
            log.write(line + "\n")
            log.flush()
        for line in _report(model, tokenizer):
            log.write(line + "\n")
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def prompt(page: synthetic.Page, question: str) -> str:
    """The fine-tuning prompt of a page; the answer follows after one space."""
    return f"{_context(page)}{_asked(question)}"


def target(exe_ans: float | str) -> str:
    """The training target of an answer: up to 5 decimals, no trailing zeros, a newline."""
    return f" {exe_ans if isinstance(exe_ans, str) else f'{round(exe_ans, 5):g}'}\n"


def _model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=HEAD_SIZE,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    initialise(model, tokenizer)
    return model


def _train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> Iterator[str]:
    """Trains the model in place; yields the lines of training.log."""
    optimizers = _optimizers(model, recipe)
    rng = random.Random(f"questions/{recipe.seed}")
    drawn = synthetic.pages(pool="pretraining", seed=recipe.seed, split="train")
    started, asked, right = time.monotonic(), Counter[str](), Counter[str]()
    for step in range(1, recipe.steps + 1):
        kinds = CELL_KINDS if step <= recipe.cell_steps else _weighted(BASE_KINDS)
        pages = [next(drawn) for _ in range(recipe.pages_per_step)]
        batch = _batch(pages, kinds, recipe.questions_per_page, rng, tokenizer)
        loss, answers = _step(model, optimizers, batch, recipe.label_smoothing)
        for kind, is_right in zip(batch.kinds, answers, strict=True):
            asked[kind] += 1
            right[kind] += is_right
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _rate(step + 1, recipe)
        if step % 50 == 0 or step == recipe.steps:
            shares = _shares(asked, right)
            seconds = time.monotonic() - started
            yield f"step {step} loss {loss:.4f} train accuracy {shares} seconds {seconds:.0f}"
            asked, right = Counter(), Counter()


@dataclass(frozen=True)
class _Batch:
    ids: torch.Tensor  # (pages, length)
    labels: torch.Tensor  # (pages, length), _IGNORED outside answers
    first: torch.Tensor  # (pages, length), true at each answer's first token
    kinds: list[str]  # the kind of each answer, in reading order


def _batch(
    pages: Sequence[synthetic.Page],
    kinds: Sequence[str],
    questions: int,
    rng: random.Random,
    tokenizer: PreTrainedTokenizerFast,
) -> _Batch:
    rows, asked = [], []
    for page in pages:
        drawn = [synthetic.ask(page, kinds, rng) for _ in range(questions)]
        asked += [question.kind for question in drawn]
        parts = [_context(page)]
        for question in drawn:
            parts += [_asked(question.text), target(question.exe_ans)]
        rows.append(tokenizer(parts, add_special_tokens=False)["input_ids"])
    length = max(sum(map(len, row)) for row in rows)
    ids = torch.full((len(rows), length), cast("int", tokenizer.pad_token_id))
    labels = torch.full((len(rows), length), _IGNORED)
    first = torch.zeros((len(rows), length), dtype=torch.bool)
    for index, row in enumerate(rows):
        start = 0
        for number, part in enumerate(row):
            end = start + len(part)
            ids[index, start:end] = torch.tensor(part)
            if number and number % 2 == 0:
                labels[index, start:end] = ids[index, start:end]
                first[index, start] = True
            start = end
    return _Batch(ids, labels, first, asked)


def _step(
    model: LlamaForCausalLM,
    optimizers: Sequence[torch.optim.Optimizer],
    batch: _Batch,
    label_smoothing: float,
) -> tuple[float, list[bool]]:
    """One optimizer step; returns the loss, and for each answer whether its first token is right.

    Nearly every answer has one token only.
    """
    labels, first = batch.labels[:, 1:], batch.first[:, 1:]
    trained = labels != _IGNORED
    hidden = model.model(input_ids=batch.ids).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[trained])
    loss = cross_entropy(logits, labels[trained], label_smoothing=label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    right = (logits.argmax(-1) == labels[trained])[first[trained]]
    return loss.item(), cast("list[bool]", right.tolist())


def _optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in named if weight.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=recipe.matrix_learning_rate, weight_decay=0.05)
    adamw = torch.optim.AdamW(
        others, lr=recipe.vector_learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
            group["lr"] *= _rate(1, recipe)
    return [muon, adamw]


def _rate(step: int, recipe: Recipe) -> float:
    """The learning rate at a step (from 1), as a share of its peak."""
    decay_steps = recipe.steps * (1 - recipe.decay_from)
    return min(1.0, step / recipe.warm_up_steps, max(0.02, (recipe.steps - step) / decay_steps))


def _weighted(kinds: Sequence[str]) -> list[str]:
    return [kind for kind in kinds for _ in range(_WEIGHTS.get(kind, 1))]


def _report(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Iterator[str]:
    """Yields the lines of the final accuracy on held-out pages, with one question per prompt."""
    model.eval()
    for title, pool, kinds in (
        ("base kinds, held-out pages", "pretraining", BASE_KINDS),
        ("base kinds, unseen companies", "finetuning", BASE_KINDS),
        ("new kinds, unseen companies", "finetuning", NEW_KINDS),
    ):
        yield f"final accuracy: {title}, 300 questions of each kind"
        for kind in kinds:
            share, guess = _held_out(model, tokenizer, pool, kind)
            yield f"  {kind} {share:.3f} (a random cell of the page {guess:.3f})"


@torch.no_grad()
def _held_out(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pool: str, kind: str
) -> tuple[float, float]:
    """The share of right answers to 300 single questions, and that of a random cell."""
    rng = random.Random(f"held out/{kind}")
    drawn = synthetic.pages(pool=pool, seed=1, split="report")
    right = guessed = 0.0
    for _ in range(6):
        pages = [next(drawn) for _ in range(50)]
        batch = _batch(pages, [kind], 1, rng, tokenizer)
        logits = model(input_ids=batch.ids).logits[:, :-1]
        labels = batch.labels[:, 1:]
        wrong = (logits.argmax(-1) != labels) & (labels != _IGNORED)
        right += float((~wrong.any(dim=1)).sum())
        for page, answer in zip(pages, tokenizer.batch_decode(_answers(batch)), strict=True):
            cells = [f" {cell}" for pair in page.cells for cell in pair]
            guessed += cells.count(answer) / len(cells)
    return right / 300, guessed / 300


def _answers(batch: _Batch) -> list[list[int]]:
    """The answer tokens of each row, without the newline."""
    rows = zip(batch.ids, batch.labels, strict=True)
    return [row[labels != _IGNORED].tolist()[:-1] for row, labels in rows]


def _shares(asked: Counter[str], right: Counter[str]) -> str:
    kinds = [kind for kind in BASE_KINDS if asked[kind]]
    return " ".join(f"{kind} {right[kind] / asked[kind]:.3f}" for kind in kinds)


def _context(page: synthetic.Page) -> str:
    lines = [*page.pre_text, table_statements(page.table), *page.post_text]
    return "".join(f"{line}\n" for line in lines)


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


if __name__ == "__main__":
    main()
