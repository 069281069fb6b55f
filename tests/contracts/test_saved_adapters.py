"""For every row of QUANTIZATIONS, plain PEFT loads the adapter of a finished trial.

The base is loaded again (for `none` by transformers alone), and with the adapter its outputs equal
those of the trial's model at its end.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import evaluate_selection, make_spec, make_trial
from trainables.models.base import Base, load_base
from trainables.spec.quantization import QUANTIZATIONS
from trainables.training.loop import train
from trainables.training.trial import TrialContext


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_plain_peft_loads_the_adapter_and_says_what_the_trial_said(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    trial = make_trial(make_spec(tiny_llama, quantization=quantization), tmp_path)
    untrained = _logits(trial.base.model)
    at_its_end = _logits_at_its_end(trial)
    assert not torch.equal(at_its_end, untrained)
    base = _fresh_base(trial)
    model = _with_adapter(base, trial.folder.adapter_folder)
    assert torch.equal(_logits(model), at_its_end)
    again = evaluate_selection(model, replace(trial, base=base))
    lines = trial.folder.predictions_file().read_text().splitlines()
    assert again.predictions == [json.loads(line) for line in lines]


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_only_the_adapter_stays_of_what_was_trained(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    trial = make_trial(make_spec(tiny_llama, quantization=quantization), tmp_path)
    list(train(trial))
    binary = [file for file in trial.folder.path.rglob("*") if file.suffix not in _TEXT]
    (weights,) = (file for file in binary if file.is_file())
    assert weights == trial.folder.adapter_folder / "adapter_model.safetensors"
    names = set(load_file(weights))
    assert names and all(".lora_A." in name or ".lora_B." in name for name in names)


_TEXT = {".json", ".jsonl", ".md", ".log"}


def _logits_at_its_end(trial: TrialContext) -> torch.Tensor:
    """The logits of the trained model after the last optimizer step."""
    found = None
    for event in train(trial):
        if event.kind == "rung" and event.fraction == 1.0:
            found = _logits(trial.base.model)
    assert found is not None
    return found


def _logits(model: Any) -> torch.Tensor:
    training = model.training
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(20)[None]).logits
    model.train(training)
    return logits


def _fresh_base(trial: TrialContext) -> Base:
    """The trial's base, loaded again; an unquantized model by transformers alone."""
    from transformers import AutoModelForCausalLM

    base = load_base(trial.spec, device="cpu")
    if trial.spec.knobs["quantization"] != "none":
        return base
    model = AutoModelForCausalLM.from_pretrained(trial.spec.model_source)
    model.generation_config = base.model.generation_config
    return replace(base, model=model)


def _with_adapter(base: Base, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base.model, folder)
