"""Compares memory estimates with measurements, on random small configurations on this machine.

    python -m benchmarks.memory_prediction [--count 40] [--seed 0] [--method full] [--shared]
                                           [--choices]

The measurement is the peak of torch.profiler's record of allocations during two real optimizer
steps and a real evaluation. It uses nothing of the simulation's own tracking. Models are several
megabytes large, so that weights, activations and logits outweigh constants.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from tests.tiny_models import make_tokenizer
from trainables.data.batches import IGNORED, Batch
from trainables.data.encoding import ChoiceTokens, Encoded
from trainables.evaluation.evaluate import evaluate
from trainables.methods.registry import METHODS, make_method
from trainables.models.base import Base, load_base
from trainables.models.tensors import tensor_bytes
from trainables.resources.estimate import (
    UNDER_ALLOWANCE,
    UNDER_ALLOWANCE_BYTES,
    Estimate,
    Workload,
)
from trainables.simulation.estimate import predict
from trainables.spec.decoding import Decoding
from trainables.spec.knobs import canonical
from trainables.spec.trial_spec import Budget, Execution, TrialSpec
from trainables.tasks.finqa.task import FinQA
from trainables.tasks.task import Answering, Example
from trainables.training.engine import Engine, less_activation_memory


@dataclass(frozen=True)
class Case:
    """One configuration: a model's config.json, a trial's knobs and the lengths of its examples."""

    config: dict[str, Any]
    knobs: dict[str, Any]
    lengths: tuple[int, ...]  # of the examples of a micro-batch
    eval_lengths: tuple[int, ...]
    completion_tokens: int
    new_tokens: int
    beginning: int = 0  # tokens with which all evaluated rows begin
    choice_tokens: int = 0  # of each of three choices among which a likelihood decides; 0: none

    def __str__(self) -> str:
        knobs = self.knobs
        return (
            f"{self.config['model_type']:8} {self.config['hidden_size']:3}x"
            f"{self.config['num_hidden_layers']} {knobs['quantization']:4} "
            f"{knobs['compute_dtype']:8} {_trained(knobs):4} {knobs['optimizer']:5} "
            f"B{len(self.lengths)}{'+' if knobs['gradient_accumulation'] > 1 else ' '} "
            f"L{max(self.lengths):<3} {'ckpt' if knobs['gradient_checkpointing'] else '    '} "
            f"E{len(self.eval_lengths):<2} S{self.beginning:<3} C{self.choice_tokens}"
        )


def _trained(knobs: dict[str, Any]) -> str:
    method = knobs.get("method", "lora")
    return f"r{knobs['rank']}" if method == "lora" else str(method)


@dataclass(frozen=True)
class Comparison:
    """Estimated and measured bytes of one case, in this order."""

    case: Case
    train: tuple[int, int]
    evaluation: tuple[int, int]
    predict_seconds: float

    @property
    def errors(self) -> tuple[float, ...]:
        """Relative errors of training and evaluation; negative if the estimate is too low."""
        return tuple(
            (estimated - measured) / measured
            for estimated, measured in (self.train, self.evaluation)
        )

    @property
    def is_within_allowance(self) -> bool:
        """Whether no estimate is below the measurement by more than the allowance."""
        return all(
            estimated >= measured - max(UNDER_ALLOWANCE * measured, UNDER_ALLOWANCE_BYTES)
            for estimated, measured in (self.train, self.evaluation)
        )


def draw(count: int, *, seed: int, method: str = "lora") -> list[Case]:
    """`count` random cases; architectures alternate, and so do quantizations for LoRA."""
    chance = random.Random(seed)
    cases = [_case(chance, index) for index in range(count)]
    if method == "lora":
        return cases
    own = {"method": method, "quantization": "none"}
    return [dataclasses.replace(case, knobs={**case.knobs, **own}) for case in cases]


def with_shared_beginning(case: Case) -> Case:
    """The case with the same tokens, half as many as in its longest row, before all others."""
    beginning = max(case.eval_lengths) // 2
    lengths = tuple(length + beginning for length in case.eval_lengths)
    return dataclasses.replace(case, beginning=beginning, eval_lengths=lengths)


def with_choices(case: Case) -> Case:
    """The case with answers by likelihood."""
    return dataclasses.replace(case, new_tokens=0, choice_tokens=min(4, case.completion_tokens))


def compare(case: Case, folder: Path) -> Comparison:
    """Runs the case, estimates its memory, and returns both."""
    train, evaluation, knobs = measure(case, folder)
    started = time.process_time()
    estimate = estimated(case, knobs)
    return Comparison(
        case=case,
        train=(estimate.train_memory_bytes, train),
        evaluation=(estimate.eval_memory_bytes, evaluation),
        predict_seconds=time.process_time() - started,
    )


def estimated(case: Case, knobs: dict[str, Any]) -> Estimate:
    """The estimate by simulation."""
    rows, eval_rows = _batch(case, case.lengths), _batch(case, case.eval_lengths)
    workload = Workload(
        batch_size=len(case.lengths),
        sequence_length=max(case.lengths),
        completion_tokens=case.completion_tokens,
        logit_positions=_positions(rows),
        accumulated=knobs["gradient_accumulation"] > 1,
        eval_batch_size=len(case.eval_lengths),
        eval_sequence_length=max(case.eval_lengths),
        eval_logit_positions=_positions(eval_rows),
        new_tokens=case.new_tokens,
        eval_beginning=case.beginning,
        eval_choice_tokens=case.choice_tokens,
    )
    return predict(case.config, knobs, workload)


def measure(case: Case, folder: Path) -> tuple[int, int, dict[str, Any]]:
    """Peaks in training and evaluation, weights included, and the canonical knobs."""
    _save_model(case.config, folder)
    spec = _spec(case, folder)
    base = load_base(spec, device="cpu")
    base.model.generation_config.eos_token_id = None  # so that no answer ends early
    base = dataclasses.replace(base, line_ends=torch.zeros_like(base.line_ends))
    model = make_method(spec.knobs).attach(base.model, seed=0)
    weights = tensor_bytes(model)
    knobs = dict(spec.knobs)
    train = peak_bytes(lambda: _train(case, knobs, base, model))
    evaluation = peak_bytes(lambda: _evaluate(case, spec.execution, base, model))
    return weights + train, weights + evaluation, knobs


def peak_bytes(work: Callable[[], None]) -> int:
    """The peak of allocated minus freed bytes during `work`.

    What earlier work has left is freed before, not during it.
    """
    gc.collect()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        work()
    results: Any = profile.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory_prediction",
        description=__doc__.splitlines()[0] if __doc__ else "",
    )
    parser.add_argument(
        "--count", type=int, default=40, help="configurations (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--method",
        choices=[name for name, row in METHODS.items() if row.trains],
        default="lora",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--shared",
        action="store_true",
        help="evaluated rows begin with the same tokens",
    )
    parser.add_argument(
        "--choices", action="store_true", help="the likeliest of three choices is the answer"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = []
    for drawn in draw(given.count, seed=given.seed, method=given.method):
        case = with_shared_beginning(drawn) if given.shared else drawn
        case = with_choices(case) if given.choices else case
        with tempfile.TemporaryDirectory() as folder:
            found.append(compare(case, Path(folder)))
        print(_row(found[-1]), flush=True)
    print(_summary(found))


def _case(chance: random.Random, index: int) -> Case:
    quantization = ("none", "int8", "nf4", "fp4")[index % 4]
    architecture = ("llama", "qwen2", "gpt_neox")[index % 3]
    count, longest = chance.choice((1, 2, 3, 4, 6)), chance.randrange(64, 320)
    eval_longest = chance.randrange(64, 320)
    completion = chance.randrange(3, 12)
    knobs = {
        "quantization": quantization,
        "double_quantization": chance.random() < 0.5,
        "compute_dtype": chance.choice(("float32", "float32", "bfloat16")),
        "rank": chance.choice((2, 8, 16, 64)),
        "dropout": chance.choice((0.0, 0.0, 0.1)),
        "optimizer": chance.choice(("adamw", "adamw", "sgd")),
        "batch_size": count,
        "gradient_accumulation": chance.choice((1, 1, 2)),
        "gradient_checkpointing": chance.random() < 0.5,
    }
    return Case(
        config=_config(chance, architecture),
        knobs=knobs,
        lengths=_lengths(chance, count, longest, completion),
        eval_lengths=_lengths(chance, chance.choice((1, 2, 4, 8)), eval_longest, completion),
        completion_tokens=completion,
        new_tokens=chance.randrange(2, 10),
    )


def _lengths(chance: random.Random, count: int, longest: int, completion: int) -> tuple[int, ...]:
    """The longest example and shorter ones, of different lengths as those of a task, and so long
    that they are one batch of an evaluation."""
    rest = [chance.randrange(max(completion + 8, longest // 2), longest) for _ in range(count - 1)]
    return (longest, *(max(length, longest // 2 + completion) for length in rest))


def _config(chance: random.Random, architecture: str) -> dict[str, Any]:
    heads = chance.choice((4, 8))
    hidden = heads * chance.choice((32, 64))
    config = {
        "model_type": architecture,
        "hidden_size": hidden,
        "intermediate_size": hidden * chance.choice((2, 3, 4)),
        "num_hidden_layers": chance.choice((2, 3, 5, 6, 8)),
        "num_attention_heads": heads,
        "vocab_size": chance.choice((1024, 4096, 8192)),
        "max_position_embeddings": 512,
        "tie_word_embeddings": chance.random() < 0.5,
    }
    if architecture != "gpt_neox":
        config["num_key_value_heads"] = heads // chance.choice((1, 2, 4))
    return config


def _save_model(config: dict[str, Any], folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def _spec(case: Case, folder: Path) -> TrialSpec:
    return TrialSpec(
        role="trial",
        knobs=canonical({**case.knobs, "model": str(folder)}),
        model_digest=str(folder),
        task="finqa",
        task_identity={},
        task_options={},
        budget=Budget(train_examples=8, eval_examples=1),
        execution=Execution(
            eval_batch_size=len(case.eval_lengths), max_new_tokens=max(1, case.new_tokens)
        ),
        model_source=str(folder),
    )


def _batch(case: Case, lengths: tuple[int, ...]) -> Batch:
    chance = torch.Generator().manual_seed(0)
    size = (len(lengths), max(lengths))
    ids = torch.randint(3, min(300, case.config["vocab_size"]), size, generator=chance)
    ids[:, : case.beginning] = ids[0, : case.beginning].clone()
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
        answered = slice(length - case.completion_tokens, length)
        labels[row, answered] = ids[row, answered]
    return Batch(ids, mask, labels)


def _positions(batch: Batch) -> int:
    return int((batch.labels[:, 1:] != IGNORED).any(dim=0).sum())


def _train(case: Case, knobs: dict[str, Any], base: Base, model: Any) -> None:
    """Two optimizer steps: at the second the optimizer's states exist already."""
    batch = _batch(case, case.lengths)
    engine = Engine(model, base, knobs, total_steps=2)
    model.train()
    with less_activation_memory(model, wanted=knobs["gradient_checkpointing"]):
        for step in range(2):
            for _ in range(knobs["gradient_accumulation"]):
                engine.accumulate(batch, completion_tokens=case.completion_tokens)
            engine.step(step)


def _evaluate(case: Case, execution: Execution, base: Base, model: Any) -> None:
    batch = _batch(case, case.eval_lengths)
    split = [length - case.completion_tokens for length in case.eval_lengths]
    rows = [tuple(row) for row in batch.input_ids.tolist()]
    encoded = Encoded(
        examples=tuple(Example(id=str(i), record={}, group="") for i in range(len(rows))),
        prompts=tuple(row[:at] for row, at in zip(rows, split, strict=True)),
        completions=tuple(
            row[at : at + case.completion_tokens] for row, at in zip(rows, split, strict=True)
        ),
        cut=(False,) * len(rows),
        choices=_choices(case, rows),
        beginning=case.beginning,
    )
    task, peak = _NoTask(case), _NoPeak()
    evaluate(
        model,
        base,
        task=task,  # type: ignore[arg-type]
        encoded=encoded,
        execution=execution,
        peak=peak,  # type: ignore[arg-type]
        decoding=Decoding.of(case.knobs),
    )


def _choices(case: Case, rows: Sequence[tuple[int, ...]]) -> tuple[tuple[ChoiceTokens, ...], ...]:
    """For each row three choices, of its own last tokens; none if answers are written."""
    if not case.choice_tokens:
        return ()
    tokens = [row[-case.choice_tokens :] for row in rows]
    return tuple(tuple(ChoiceTokens(name, own) for name in "abc") for own in tokens)


class _NoTask:
    """Scores nothing."""

    used_metrics = FinQA.metrics

    def __init__(self, case: Case) -> None:
        self.answering = Answering.LIKELIHOOD if case.choice_tokens else Answering.GENERATION

    def gold(self, example: Example) -> str:
        return ""

    def meaning(self, example: Example, text: str) -> str:
        return ""

    def slices(self, example: Example) -> dict[str, str]:
        return {}

    def score(self, example: Example, text: str) -> dict[str, float]:
        return {}

    def aggregate(self, scores: Sequence[Any]) -> dict[str, float]:
        return {}


class _NoPeak:
    """Measures nothing, because the profiler measures from outside."""

    @contextlib.contextmanager
    def holding(self, more_bytes: int) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def measure(self, *, representative: bool) -> Iterator[None]:
        yield


def _row(found: Comparison) -> str:
    cells = [str(found.case)]
    for (predicted, measured), error in zip(
        (found.train, found.evaluation), found.errors, strict=True
    ):
        cells.append(f"{predicted / 1e6:8.2f} {measured / 1e6:8.2f} MB {error:+7.2%}")
    return " | ".join([*cells, f"{found.predict_seconds:5.1f} s"])


def _summary(found: Sequence[Comparison]) -> str:
    lines = []
    for name, at in (("training", 0), ("evaluation", 1)):
        errors = [comparison.errors[at] for comparison in found]
        sizes = sorted(map(abs, errors))
        high = sizes[min(len(sizes) - 1, int(0.95 * len(sizes)))]
        lines.append(
            f"{name}: {len(found)} configurations, median {statistics.median(sizes):.3%}, "
            f"95th percentile {high:.3%}, lowest {min(errors):+.3%}, highest {max(errors):+.3%}"
        )
    within = sum(comparison.is_within_allowance for comparison in found)
    lines.append(
        f"{within} of {len(found)} estimates are too low by at most {UNDER_ALLOWANCE:.0%} or "
        f"{UNDER_ALLOWANCE_BYTES // 1024} KiB"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
