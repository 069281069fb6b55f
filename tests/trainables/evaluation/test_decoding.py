"""Strategies: answers are those of plain transformers, and each can be asked again."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import make_spec, make_trial, shared_base
from trainables.evaluation.decoding import Draw, EndOfLineOfBeams
from trainables.evaluation.evaluate import Evaluation, evaluate
from trainables.evaluation.generation import EndOfLine, generate, line_end
from trainables.resources.flops import Generation
from trainables.resources.memory_peak import PeakMemory
from trainables.spec.decoding import Decoding
from trainables.training.trial import TrialContext

SAMPLE = Decoding("sample", temperature=0.9, seed=3)
BEAM = Decoding("beam", beams=4)
BEAM_SAMPLE = Decoding("beam_sample", beams=3, temperature=0.8, top_k=40, top_p=0.95, seed=3)
STRATEGIES = [SAMPLE, replace(SAMPLE, top_k=30, top_p=0.9), BEAM, BEAM_SAMPLE]


@pytest.fixture
def trial(tiny_llama: Path, tmp_path: Path) -> TrialContext:
    return make_trial(make_spec(tiny_llama, method="untrained"), tmp_path)


def evaluation(trial: TrialContext, decoding: Decoding, **execution: Any) -> Evaluation:
    model = trial.base.model
    return evaluate(
        model,
        trial.base,
        task=trial.data.task,
        encoded=trial.data.split("selection"),
        execution=replace(trial.spec.execution, **execution),
        peak=PeakMemory(model, trial.base.device),
        decoding=decoding,
    )


def texts(trial: TrialContext, decoding: Decoding, **execution: Any) -> list[str]:
    return [row["prediction"] for row in evaluation(trial, decoding, **execution).predictions]


@pytest.mark.parametrize("decoding", STRATEGIES, ids=lambda each: each.strategy)
def test_an_answer_depends_on_its_question_and_the_seed_and_not_on_its_batch(
    trial: TrialContext, decoding: Decoding
) -> None:
    found = texts(trial, decoding, eval_batch_size=4)
    assert texts(trial, decoding, eval_batch_size=4) == found
    assert texts(trial, decoding, eval_batch_size=1) == found
    assert texts(trial, decoding, eval_batch_size=8) == found
    if decoding.is_drawn:
        assert texts(trial, replace(decoding, seed=4)) != found
        assert len(set(found)) > 1


def test_beams_are_those_of_plain_transformers_asked_one_by_one(trial: TrialContext) -> None:
    for decoding in (BEAM, Decoding("beam", beams=3, length_penalty=0.2)):
        expected = [_plain(trial, prompt, decoding) for prompt in _prompts(trial)]
        assert texts(trial, decoding, eval_batch_size=4, max_new_tokens=6) == expected
    greedy = texts(trial, Decoding(), max_new_tokens=6)
    assert expected != greedy


def test_beams_that_sample_are_those_of_plain_transformers_with_the_same_seed(
    trial: TrialContext,
) -> None:
    examples = trial.data.split("selection").examples
    for example, prompt, text in zip(
        examples, _prompts(trial), texts(trial, BEAM_SAMPLE, max_new_tokens=6), strict=True
    ):
        torch.manual_seed(random.Random(f"3/0/{example.id}").getrandbits(63))
        options = {"do_sample": True, "temperature": 0.8, "top_k": 40, "top_p": 0.95}
        assert text == _plain(trial, prompt, BEAM_SAMPLE, **options)


def test_a_sample_has_the_probabilities_of_the_model(trial: TrialContext) -> None:
    """The first token of 2000 questions with one prompt, against the model's own distribution."""
    (prompt, *_), count = _prompts(trial), 2000
    decoding = Decoding("sample", temperature=0.5, top_k=8)
    draw = Draw(decoding, ids=tuple(map(str, range(count))))
    drawn = []
    generate_ids = trial.base.model.generate

    def recorded(**options: Any) -> torch.Tensor:
        found: torch.Tensor = generate_ids(**options)
        drawn.append(found[:, -1])
        return found

    trial.base.model.generate = recorded
    try:
        generate(trial.base.model, trial.base, [prompt] * count, 1, draw=draw)
    finally:
        del trial.base.model.generate
    with torch.no_grad():
        logits = trial.base.model(torch.tensor([prompt])).logits[0, -1].double() / 0.5
    kept = logits.topk(8)
    expected = torch.zeros_like(logits).scatter(0, kept.indices, kept.values.softmax(-1))
    seen = torch.bincount(drawn[0], minlength=len(logits)) / count
    assert set(drawn[0].tolist()) <= set(kept.indices.tolist())
    assert (seen - expected).abs().max() < 4 * (0.25 / count) ** 0.5


def test_votes_are_kept_and_each_is_work(trial: TrialContext) -> None:
    one, three = evaluation(trial, SAMPLE), evaluation(trial, replace(SAMPLE, votes=3))
    for row, single in zip(three.predictions, one.predictions, strict=True):
        assert len(row["drawn"]) == 3
        assert row["drawn"][0] == single["prediction"]
        assert row["prediction"] in row["drawn"]
        assert "drawn" not in single
    assert len(set(three.predictions[0]["drawn"])) > 1
    assert len(_answered(three)) == 3 * len(_answered(one))


def test_beams_are_rows_of_their_batches_and_their_steps_are_counted(trial: TrialContext) -> None:
    batches = _answered(evaluation(trial, BEAM))
    assert [each.batch_size for each in batches] == [16, 16]
    assert all(1 <= each.new_tokens <= 4 for each in batches)
    alone = _answered(evaluation(trial, BEAM_SAMPLE))
    assert [each.batch_size for each in alone] == [3] * 8


@pytest.mark.parametrize("decoding", STRATEGIES, ids=lambda each: each.strategy)
def test_no_strategy_advances_the_random_generator(trial: TrialContext, decoding: Decoding) -> None:
    before = torch.get_rng_state()
    evaluation(trial, decoding)
    assert torch.equal(torch.get_rng_state(), before)


def test_beams_end_at_the_first_newline_after_something_to_read(tiny_llama: Path) -> None:
    base = shared_base(make_spec(tiny_llama))
    (newline,) = base.tokenizer("\n", add_special_tokens=False)["input_ids"]
    (digit,) = base.tokenizer("5", add_special_tokens=False)["input_ids"]
    rows = torch.tensor([[newline, digit, newline], [digit, digit, digit], [digit, newline, digit]])
    prompt = torch.tensor([[digit, newline]] * 3)
    ends, last = EndOfLineOfBeams(base, 2), torch.empty(0)
    whole = torch.cat([prompt, rows], dim=1)
    assert ends(whole[:, :3], last).tolist() == [False, False, False]
    assert ends(whole[:, :4], last).tolist() == [False, False, True]
    swapped = whole[[2, 0, 1]]  # beams change their places between two steps
    assert ends(swapped, last).tolist() == [True, True, False]


def test_only_beams_read_whole_rows_for_the_end_of_a_line(tiny_llama: Path) -> None:
    base = shared_base(make_spec(tiny_llama))
    for decoding in (Decoding(), SAMPLE):
        assert isinstance(line_end(base, Draw(decoding), prompt_length=3), EndOfLine)
    assert isinstance(line_end(base, Draw(BEAM), prompt_length=3), EndOfLineOfBeams)


def _prompts(trial: TrialContext) -> tuple[tuple[int, ...], ...]:
    return trial.data.split("selection").prompts


def _answered(found: Evaluation) -> list[Generation]:
    return [each for each in found.work if isinstance(each, Generation)]


def _plain(trial: TrialContext, prompt: tuple[int, ...], decoding: Decoding, **more: Any) -> str:
    """What transformers itself returns for one prompt, without this project's code but for the
    criterion by which a line ends."""
    base = trial.base
    with torch.no_grad():
        written = base.model.generate(
            torch.tensor([prompt]),
            max_new_tokens=6,
            num_beams=decoding.beams,
            length_penalty=decoding.length_penalty,
            stopping_criteria=[_LineEnd(base, len(prompt))],
            **more,
        )
    text = base.tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True)
    return str(text.strip().partition("\n")[0].rstrip())


class _LineEnd:
    """Ends a row whose text has a newline after something to read."""

    def __init__(self, base: Any, length: int) -> None:
        self._base, self._length = base, length

    def __call__(self, ids: torch.Tensor, scores: Any, **rest: Any) -> torch.Tensor:
        texts = self._base.tokenizer.batch_decode(ids[:, self._length :])
        return torch.tensor(["\n" in text.lstrip() for text in texts])
