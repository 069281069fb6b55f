"""Full fine-tuning on one device: trained parameters, the restored base, the saved model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import assert_same_curve, evaluate_selection, make_spec, make_trial, run
from trainables.errors import InputError
from trainables.methods.adapters import LoRA
from trainables.methods.weights import Full
from trainables.models.base import load_base
from trainables.models.tensors import stored_tensors
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.sealed_json import DamagedError
from trainables.training.engine import Engine
from trainables.training.full_evaluation import score_report
from trainables.training.loop import train
from trainables.training.trial import TrialContext


def full_spec(model: Path, **knobs: Any) -> TrialSpec:
    return make_spec(model, method="full", **{"learning_rate": 1e-3, **knobs})


def test_all_parameters_are_trained_and_the_base_is_given_back_to_the_bit(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = full_spec(tiny_llama)
    base, fresh = load_base(spec, device="cpu"), load_base(spec, device="cpu")
    events = run(spec, tmp_path, base=base)
    losses = [event.metrics["train_loss"] for event in events if "train_loss" in event.metrics]
    assert losses[-1] < losses[0]
    given = dict(stored_tensors(base.model))
    for name, tensor in stored_tensors(fresh.model):
        assert torch.equal(given[name], tensor), name
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training
    trained = _loaded(make_trial(spec, tmp_path).folder.model_folder)
    before = dict(fresh.model.named_parameters())
    assert all(not torch.equal(p, before[name]) for name, p in trained.named_parameters())


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_master_weights_are_float32_whatever_is_computed_in(
    compute_dtype: str, tiny_llama: Path, tmp_path: Path
) -> None:
    trial = make_trial(full_spec(tiny_llama, compute_dtype=compute_dtype), tmp_path)
    model = Full().attach(trial.base.model, seed=0)
    engine = Engine(model, trial.base, trial.spec.knobs, total_steps=1)
    assert {parameter.dtype for parameter in engine.parameters.values()} == {torch.float32}
    assert Full().detach(model).dtype == trial.base.compute_dtype


def test_small_updates_of_a_bfloat16_base_are_not_rounded_away(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = full_spec(tiny_llama, compute_dtype="bfloat16", learning_rate=1e-6, warmup=0.0)
    run(spec, tmp_path)
    trial = make_trial(spec, tmp_path)
    trained = dict(_loaded(trial.folder.model_folder).named_parameters())
    before = dict(trial.base.model.named_parameters())
    moved = [not torch.equal(trained[name], p.float()) for name, p in before.items()]
    rounded = [torch.equal(trained[name].bfloat16(), p) for name, p in before.items()]
    assert all(moved)
    assert any(rounded)  # what bfloat16 weights would have kept of it


def test_what_it_ends_with_is_a_model_that_plain_transformers_loads(
    tiny_llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    trial = make_trial(full_spec(tiny_llama), tmp_path)
    at_its_end = _logits_at_its_end(trial)
    folder = trial.folder.model_folder
    model = _loaded(folder)
    assert torch.equal(_logits(model), at_its_end)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("revenue 2014").input_ids == trial.base.tokenizer("revenue 2014").input_ids
    assert not [*folder.glob("*.bin"), *folder.glob("*.pt")]
    model.generation_config = trial.base.model.generation_config
    again = evaluate_selection(model, replace(trial, base=replace(trial.base, model=model)))
    lines = trial.folder.predictions_file().read_text().splitlines()
    assert again.predictions == [json.loads(line) for line in lines]


def test_a_trained_model_is_a_base_for_the_next_sweep(tiny_llama: Path, tmp_path: Path) -> None:
    spec = full_spec(tiny_llama)
    run(spec, tmp_path)
    trained = make_trial(spec, tmp_path).folder.model_folder
    events = run(make_spec(trained, method="untrained"), tmp_path / "next")
    assert events[-1].kind == "finished"


def test_time_and_bytes_of_what_was_saved_are_in_the_summary(
    tiny_llama: Path, tmp_path: Path
) -> None:
    facts = {}
    for method in ("full", "lora"):
        spec = make_spec(tiny_llama, method=method)
        run(spec, tmp_path)
        trial = make_trial(spec, tmp_path)
        summary = trial.folder.summary()
        assert summary is not None
        facts[method] = summary["facts"]
        files = [file for file in trial.result_folder.rglob("*") if file.is_file()]
        assert facts[method]["checkpoint_bytes"] == sum(file.stat().st_size for file in files) > 0
        assert facts[method]["save_seconds"] > 0
    parameters = sum(p.numel() for p in load_base(spec, device="cpu").model.parameters())
    assert facts["full"]["trainable_parameters"] == parameters
    assert 0 < facts["lora"]["trainable_parameters"] < parameters


def test_gradient_checkpointing_changes_no_curve(tiny_llama: Path, tmp_path: Path) -> None:
    plain = run(full_spec(tiny_llama), tmp_path / "plain")
    checkpointed = run(
        full_spec(tiny_llama, gradient_checkpointing=True), tmp_path / "checkpointed"
    )
    assert_same_curve(checkpointed, plain)


def test_lora_after_it_on_the_same_base_is_lora_on_a_fresh_one(
    tiny_llama: Path, tmp_path: Path
) -> None:
    lora = make_spec(tiny_llama)
    base = load_base(lora, device="cpu")
    run(full_spec(tiny_llama), tmp_path / "before", base=base)
    after = run(lora, tmp_path / "after", base=base)
    assert_same_curve(after, run(lora, tmp_path / "fresh", base=load_base(lora, device="cpu")))


def test_it_is_scored_on_the_report_split_from_its_folder(tiny_llama: Path, tmp_path: Path) -> None:
    trial = make_trial(full_spec(tiny_llama), tmp_path)
    list(train(trial))
    score = score_report(trial)
    assert score["count"] == 4
    assert trial.folder.report_score() == score
    assert not any(parameter.requires_grad for parameter in trial.base.model.parameters())


def test_a_damaged_model_is_trained_again_and_not_scored(tiny_llama: Path, tmp_path: Path) -> None:
    trial = make_trial(full_spec(tiny_llama), tmp_path)
    list(train(trial))
    (weights,) = trial.folder.model_folder.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedError, match="damaged or gone"):
        score_report(trial)
    assert not trial.folder.done


def test_a_model_that_was_removed_is_not_damaged_but_is_not_scored_either(
    tiny_llama: Path, tmp_path: Path
) -> None:
    trial = make_trial(full_spec(tiny_llama), tmp_path)
    list(train(trial))
    size = sum(file.stat().st_size for file in trial.folder.model_folder.iterdir())
    assert trial.folder.discard_model("beaten") == size
    assert not trial.folder.model_folder.exists()
    assert trial.folder.damaged_adapter() == []
    assert trial.folder.done and trial.folder.is_sound()
    with pytest.raises(DamagedError):
        score_report(trial)
    list(train(trial))
    assert not trial.folder.model_was_removed
    assert score_report(trial)["count"] == 4


def test_a_folder_with_pickles_only_is_not_loaded(tiny_llama: Path, tmp_path: Path) -> None:
    base = load_base(full_spec(tiny_llama), device="cpu").model
    torch.save(base.state_dict(), tmp_path / "pytorch_model.bin")
    base.config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="safetensors"):
        Full().load(base, tmp_path)


def test_a_spent_base_is_trained_itself(tiny_llama: Path) -> None:
    base = load_base(full_spec(tiny_llama), device="cpu").model
    assert Full().attach(base, seed=0, in_place=True) is base
    assert all(parameter.requires_grad for parameter in base.parameters())
    other = load_base(full_spec(tiny_llama), device="cpu").model
    model = LoRA().attach(other, seed=0, in_place=True)
    assert LoRA().detach(model) is other


def _loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def _logits_at_its_end(trial: TrialContext) -> torch.Tensor:
    """Of what was saved: the last rung's model is that which the trial ends with."""
    seen: list[torch.Tensor] = []

    class Seen(Full):
        def save(self, model: Any, folder: Path) -> None:
            seen.append(_logits(model))
            super().save(model, folder)

    class Watched(TrialContext):
        @property
        def method(self) -> Any:
            return Seen()

    list(train(Watched(**vars(trial))))
    return seen[0]


def _logits(model: Any) -> torch.Tensor:
    training = model.training
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(20)[None]).logits
    model.train(training)
    return logits
