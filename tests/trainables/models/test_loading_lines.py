"""The lines that `orchestrator.ask` prints load the model that the trial was evaluated as."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.reporting.load_snippet import loading_lines
from tests.tiny_trials import make_spec, make_trial
from trainables.models.base import load_base
from trainables.training.loop import train

KNOBS: list[dict[str, Any]] = [
    {"quantization": "none"},
    {"quantization": "nf4", "double_quantization": True},
    {"method": "full", "learning_rate": 1e-3},
    {"method": "bias", "learning_rate": 1e-1, "quantization": "nf4"},
    {"method": "partial", "blocks": 1, "learning_rate": 1e-2},
]


@pytest.mark.slow
@pytest.mark.parametrize("knobs", KNOBS, ids=lambda knobs: "-".join(map(str, knobs.values())))
def test_the_printed_lines_load_what_was_trained(
    knobs: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, **knobs)
    trial = make_trial(spec, tmp_path, base=load_base(spec, device="cpu"))
    trial = replace(trial, provenance={"device_type": "cpu"})
    list(train(trial))
    is_whole = trial.method.saves_model
    trained = trial.folder.model_folder if is_whole else trial.folder.adapter_folder
    expected = trial.method.load(trial.base.model, trained)
    prompt = torch.tensor([trial.data.split("selection").prompts[0]])
    with torch.no_grad():
        logits = expected(prompt).logits
    names: dict[str, Any] = {}
    exec("\n".join(loading_lines(trial.folder)), names)  # our own text
    with torch.no_grad():
        torch.testing.assert_close(names["model"](prompt).logits, logits, rtol=1e-3, atol=1e-3)
    assert names["tokenizer"].decode(prompt[0]) == trial.base.tokenizer.decode(prompt[0])
