"""Shots by the base's own hidden states: the vectors, what is near by them, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tests.tiny_trials import make_spec, shared_base
from tests.trainables.tasks.own_data import own_file
from trainables.data import base_vectors as module
from trainables.data.base_vectors import base_vectors
from trainables.data.shots import questions_of
from trainables.data.trial_data import load_data
from trainables.spec.trial_spec import TrialSpec

TEXTS = ["Sales rose.", "Net profit of the unit fell to 5 million, it said.", "No.", ""]


def _expected(base: Any, text: str) -> Any:
    ids = base.tokenizer(text).input_ids or [base.pad_token]
    with torch.no_grad():
        states = base.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    mean = states[0].mean(0).numpy()
    return mean / numpy.linalg.norm(mean)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_vector_is_the_mean_of_the_last_hidden_states(
    quantization: str, tiny_llama: Path
) -> None:
    base = shared_base(make_spec(tiny_llama, quantization=quantization))
    vectors = base_vectors(base, TEXTS, {})
    for text, found in zip(TEXTS, vectors(TEXTS), strict=True):
        assert found == pytest.approx(_expected(base, text), abs=1e-5)


def test_a_text_is_computed_once(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = shared_base(make_spec(tiny_llama))
    known: dict[str, Any] = {}
    first = base_vectors(base, TEXTS, known)(TEXTS[:2])
    assert set(known) == set(TEXTS)
    monkeypatch.setattr(module, "_means", None)
    again = base_vectors(base, [*TEXTS, TEXTS[0]], known)
    assert (again(TEXTS[:2]) == first).all()


def _spec(model: Path, folder: Path, **knobs: Any) -> TrialSpec:
    given = {"method": "prompting", "shots": 2, "shot_selection": "similar", **knobs}
    spec = make_spec(model, sequence_length=400, prompt="default", **given)
    options = own_file.classification(folder)
    return replace(spec, task="classification", task_options=options, task_identity={})


def test_the_nearest_by_the_base_are_shown_and_kept_between_trials(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = _spec(tiny_llama, tmp_path, shot_vectors="base")
    base = shared_base(spec)
    cache: dict[Any, Any] = {}
    data = load_data(spec, base, cache)
    encoded = data.split("selection")
    train = data.task.load("train")
    vectors = numpy.stack([_expected(base, str(each.record["question"])) for each in train])
    for at, example in enumerate(encoded.examples):
        cosines = vectors @ _expected(base, str(example.record["question"]))
        nearest = [train[place].id for place in numpy.argsort(-cosines)[:2]]
        assert list(encoded.shots[at]) == nearest[::-1]
    kept = cache["vectors", base.key]
    assert set(kept) == set(questions_of(data.task))
    regions = _spec(tiny_llama, tmp_path, shot_vectors="base", shot_selection="regions")
    assert len(set(load_data(regions, base, cache).split("report").shots)) == 1
    assert cache["vectors", base.key] is kept
    by_terms = load_data(_spec(tiny_llama, tmp_path), base, cache).split("selection").shots
    assert by_terms != encoded.shots
