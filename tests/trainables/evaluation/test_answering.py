"""Models that are asked again give the sweep's answers, and each base is loaded once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import make_spec, run
from trainables.errors import InputError
from trainables.evaluation import answering
from trainables.evaluation.answering import Answers, Asked, answers
from trainables.methods.registry import METHODS
from trainables.models import base
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.trial_folder import TrialFolder

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
ROWS: list[dict[str, Any]] = [
    {"quantization": "none"},
    {"quantization": "int8"},  # on a CPU its answers depend on the batch
    {"quantization": "nf4", "double_quantization": True},
    {"quantization": "fp4"},
    {"method": "full", "learning_rate": 1e-3},
    {"method": "prompting", "shots": 1, "sequence_length": 1024},
    {"method": "untrained"},
    {"decoding": "sample", "temperature": 0.7, "votes": 3, "decoding_seed": 5},
    {"decoding": "beam", "beams": 3},
    {"decoding": "beam_sample", "beams": 2, "votes": 2},
]


def asked(spec: TrialSpec, folder: Path) -> Asked:
    place = TrialFolder(folder / spec.trial_id)
    trained = {
        "lora": place.adapter_folder,
        "full": place.model_folder,
        "untrained": None,
        "prompting": None,
    }
    return Asked(
        spec, trained[spec.knobs["method"]], label=spec.trial_id, threads=1, is_of_a_sweep=True
    )


def noted(spec: TrialSpec, folder: Path, split: str = "selection") -> list[dict[str, Any]]:
    lines = TrialFolder(folder / spec.trial_id).predictions_file(split).read_text().splitlines()
    return [json.loads(line) for line in lines]


def ask(models: list[Asked], questions: list[int], split: str = "selection") -> list[Answers]:
    found = answers(models, split=split, questions=questions, notify=lambda text: None)
    by_place = dict(found)
    return [by_place[at] for at in range(len(models))]


@pytest.mark.slow
@pytest.mark.parametrize("knobs", ROWS, ids=lambda knobs: "-".join(map(str, knobs.values())))
def test_an_answer_is_the_one_that_the_sweep_has_noted(
    knobs: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, **knobs)
    run(spec, tmp_path)
    expected = noted(spec, tmp_path)
    assert len({row["prediction"] for row in expected}) > 1  # else any would do
    for questions in ([3], [7, 0]):
        (found,) = ask([asked(spec, tmp_path)], questions)
        assert list(found.rows) == [expected[at] for at in questions]


def test_every_method_is_among_those_that_are_asked_again() -> None:
    assert {knobs.get("method", "lora") for knobs in ROWS} == set(METHODS)


@pytest.mark.slow
def test_a_base_is_loaded_once_and_each_trial_reads_its_own_prompt(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [
        make_spec(tiny_llama, learning_rate=5e-3),
        make_spec(tiny_llama, learning_rate=1e-2, prompt="short"),
        make_spec(tiny_llama, method="full", learning_rate=1e-3),
    ]
    for spec in specs:
        run(spec, tmp_path)
    loaded = []

    def load(spec: TrialSpec, **options: Any) -> base.Base:
        loaded.append(spec.base_key)
        return base.load_base(spec, **options)

    monkeypatch.setattr(answering, "load_base", load)
    untrained = make_spec(tiny_llama, method="untrained")
    found = ask([asked(each, tmp_path) for each in (*specs, untrained)], [2])
    assert len(loaded) == 1
    for spec, given in zip(specs, found, strict=False):
        assert given.rows[0] == noted(spec, tmp_path)[2]
    assert found[0].prompts == found[2].prompts == found[3].prompts != found[1].prompts
    assert "Answer with the final number only" in found[1].prompts[0]
    assert found[3].rows == ask([asked(untrained, tmp_path)], [2])[0].rows  # as with no other there


@pytest.mark.slow
def test_the_process_answers_a_line_and_ends_with_whoever_asks(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, method="untrained")
    given = {"spec": spec.to_json(), "trained": None, "label": "base", "threads": 1}
    given |= {"is_of_a_sweep": False, "eval_batch": None}
    request = json.dumps({"models": [given], "split": "selection", "questions": [1]})
    process = subprocess.Popen(
        [sys.executable, "-m", "trainables.evaluation.answering"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(request + "\n")
    process.stdin.flush()
    lines = [json.loads(line) for line in process.stdout]
    assert process.wait(10) == 0
    assert lines[0] == {"say": f"loading {tiny_llama.name} (none)"}
    assert lines[-1]["model"] == 0 and lines[-1]["cut"] == [False]
    assert lines[-1]["rows"][0]["id"] and "Answer:" in lines[-1]["prompts"][0]

    left = subprocess.run(
        [sys.executable, "-c", _LEFT_ALONE], cwd=REPOSITORY, timeout=60, check=False
    )
    assert left.returncode == 1


_LEFT_ALONE = """
import os, threading, time
from trainables import answering
read, write = os.pipe()
os.dup2(read, 0)
threading.Thread(target=answering._end_with_input, daemon=True).start()
os.close(write)
time.sleep(30)
"""


def test_a_model_that_is_another_by_now_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    spec = replace(make_spec(tiny_llama, method="untrained"), model_digest="another")
    with pytest.raises(InputError, match="has changed since"):
        ask([asked(spec, tmp_path)], [0])


def test_as_many_are_asked_at_once_as_its_sweep_ended_with(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def noting(*given: Any, **options: Any) -> list[dict[str, Any]]:
        sizes.append(options["execution"].eval_batch_size)
        return [{}]

    monkeypatch.setattr(answering, "answer", noting)
    given = asked(make_spec(tiny_llama, method="untrained"), tmp_path)
    ask([given, replace(given, eval_batch=3)], [0])
    assert sizes == [given.spec.execution.eval_batch_size, 3]
