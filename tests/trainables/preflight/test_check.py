"""The preflight: every fault of models and data at once, each in one message."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from tests.tiny_models import make_mixtral
from tests.tiny_trials import make_spec
from trainables.data.token_lengths import TokenLengths
from trainables.errors import InputError
from trainables.models.base import load_base
from trainables.preflight.check import preflight
from trainables.preflight.findings import Findings
from trainables.spec.trial_spec import TrialSpec

SETTINGS = "tokenizer_config.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
DROPS = "{% for c in messages[0]['content'] %}{{ c['text'] }}{% endfor %}"
RAISES_AT_SOME = (
    "{% if ' change ' in messages[0]['content'] %}{{ raise_exception('no ranges') }}{% endif %}"
    "{{ messages[0]['content'] }}"
)


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_llama, tmp_path / "model")


def findings(*specs: TrialSpec) -> Findings:
    return preflight(specs, lengths=TokenLengths(None))


def set_template(model: Path, template: str) -> None:
    for file in model.glob("chat_template.jinja"):
        file.unlink()
    settings = json.loads((model / SETTINGS).read_text())
    (model / SETTINGS).write_text(json.dumps({**settings, "chat_template": template}))


def add_tokens(model: Path, **special: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"unused{number}" for number in range(320 - len(tokenizer))])
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(model)


def pad_outside(model: Path) -> None:
    add_tokens(model, pad_token="[PAD]")


def template_outside(model: Path) -> None:
    add_tokens(model, additional_special_tokens=["<|new|>"])  # type: ignore[arg-type]
    set_template(model, "<|new|>{{ messages[0]['content'] }}")


def no_padding(model: Path) -> None:
    settings = json.loads((model / SETTINGS).read_text())
    for name in ("pad_token", "eos_token"):
        settings.pop(name)
    (model / SETTINGS).write_text(json.dumps(settings))


def only_sentencepiece(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pad": (pad_outside, "the padding token of .*'\\[PAD\\]', has the id 320, .* below 320 only"),
    "template token": (template_outside, "'<\\|new\\|>', has the id 320.* do not belong together"),
    "no padding": (no_padding, "neither a padding nor an end token"),
    "LFS": (lambda m: (m / "model.safetensors").write_text(POINTER), "Git LFS pointer"),
    "cut off": (lambda m: (m / "model.safetensors").write_bytes(b"12345678"), "damaged or cut off"),
    "sentencepiece": (only_sentencepiece, "package sentencepiece .* not installed here"),
    "tokenizer": (
        lambda m: (m / "tokenizer.json").write_text("{}"),
        "tokenizer that can't be load",
    ),
    "drops": (lambda m: set_template(m, DROPS), "drops the message"),
    "raises": (lambda m: set_template(m, "{{ raise_exception('never') }}"), "can't be used.*never"),
    "raises at some": (
        lambda m: set_template(m, RAISES_AT_SOME),
        r"finqa: \d+ of the 24 examples of the train split can't be written as prompts for .*"
        r"finetuning-5-\d+: TemplateError: no ranges",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_every_trial_would_meet_is_told_with_what_to_do(
    fault: str, model: Path
) -> None:
    make, told = FAULTS[fault]
    make(model)
    found = findings(make_spec(model, sequence_length=320)).faults
    assert [text for text in found if re.search(told, text)], found
    assert all(str(model) in text or "split" in text for text in found)


def test_what_can_be_trained_has_no_faults(tiny_llama: Path, tiny_chat_llama: Path) -> None:
    specs = [make_spec(model, sequence_length=500) for model in (tiny_llama, tiny_chat_llama)]
    assert findings(*specs) == Findings()


def test_all_models_and_all_data_are_told_of_at_once(
    model: Path, tiny_chat_llama: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(model, tmp_path / "other")
    pad_outside(model)
    (other / "model.safetensors").write_text(POINTER)
    specs = [make_spec(m, sequence_length=48) for m in (model, other, tiny_chat_llama)]
    specs.append(make_spec(tiny_chat_llama, target_modules=["q_proj", "v_porj"]))
    told = "\n".join(findings(*specs).faults)
    assert "[PAD]" in told and "LFS pointer" in told and "v_porj" in told
    assert told.count("sequence_length: examples need more than 48 tokens") == 3


def test_examples_that_do_not_fit_are_told_in_one_message_with_the_length_that_would_do(
    tiny_llama: Path,
) -> None:
    specs = [make_spec(tiny_llama, sequence_length=length) for length in (36, 24)]
    [fault] = findings(*specs).faults
    assert "more than 24 tokens" in fault and "24 of 24 of the train split" in fault
    needed = int(fault.partition("Set sequence_length >= ")[2].partition(",")[0])
    assert findings(make_spec(tiny_llama, sequence_length=needed - 1)).faults != []
    assert findings(make_spec(tiny_llama, sequence_length=needed)).faults == []


def test_what_is_dropped_is_counted_by_split(tiny_llama: Path) -> None:
    [fault] = findings(make_spec(tiny_llama, sequence_length=48)).faults
    needed = int(fault.partition("Set sequence_length >= ")[2].partition(",")[0])
    spec = dropping(make_spec(tiny_llama, sequence_length=needed - 4))
    found = findings(spec)
    assert found.faults == []
    assert any("data.too_long: drop" in note and "do not fit" in note for note in found.notes)
    assert "4 of 4 of the report split" in findings(dropping(spec, sequence_length=24)).faults[0]


def test_a_quantization_that_reaches_too_little_is_told_and_no_other(tmp_path: Path) -> None:
    model = make_mixtral(tmp_path)
    asked = [make_spec(model, quantization=kind, sequence_length=500) for kind in ("none", "nf4")]
    [fault] = findings(*asked).faults
    assert "nf4" in fault and "experts" in fault and "exclude:" in fault


def test_a_model_without_weights_is_no_fault_but_told(model: Path) -> None:
    save_file({}, model / "model.safetensors")
    spec = make_spec(model)
    assert findings(spec) == Findings(without_weights=[str(model)])


def test_a_model_of_the_hub_that_is_not_here_is_not_looked_at(tiny_llama: Path) -> None:
    spec = replace(make_spec(tiny_llama), model_source="owner/name", revision="0" * 40)
    assert findings(spec) == Findings(unchecked=[str(tiny_llama)])


def test_a_base_with_a_padding_token_outside_its_embeddings_is_not_loaded(model: Path) -> None:
    pad_outside(model)
    with pytest.raises(InputError, match=r"has the id 320"):
        load_base(make_spec(model), device="cpu")


def dropping(spec: TrialSpec, **knobs: Any) -> TrialSpec:
    options = {**spec.task_options, "too_long": "drop"}
    return replace(spec, knobs={**spec.knobs, **knobs}, task_options=options)


def test_a_named_chat_format_is_tokenized_in_place_of_the_models_template(model: Path) -> None:
    """A template that drops the message is no fault then; what a format adds has to fit."""
    set_template(model, DROPS)
    named = make_spec(model, sequence_length=320, chat_format="chatml")
    assert findings(named).faults == []
    assert any("drops" in fault for fault in findings(named, make_spec(model)).faults)
    plain, alpaca = (
        findings(make_spec(model, sequence_length=64, chat_format=name)).faults
        for name in ("none", "alpaca")
    )
    assert plain == [] and "sequence_length: examples need more than 64 tokens" in alpaca[0]
