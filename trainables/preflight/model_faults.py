"""What is wrong with a model before its weights are loaded: files, architecture, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from trainables.data.chat_template import template_faults
from trainables.data.token_lengths import tokenizer_of
from trainables.errors import InputError, first_line
from trainables.methods.registry import make_method
from trainables.methods.target_modules import ALL_LINEAR
from trainables.models.hub import HubModel, cached
from trainables.models.on_meta import base_on_meta
from trainables.models.tokenizer import pad_token_fault
from trainables.models.weight_faults import holds_tensors, weight_faults
from trainables.preflight.findings import Findings
from trainables.spec.quantization import quantization_of
from trainables.spec.rows.chat_formats import AUTO, chat_format_of
from trainables.spec.trial_spec import TrialSpec

_BUILDING = ("quantization", "double_quantization", "target_modules")


@dataclass(frozen=True)
class CheckedModel:
    """A model whose tokenizer can be loaded. `embedded` tokens have embeddings, and `positions` is
    the longest sequence; each is None if the configuration does not say."""

    name: str
    tokenizer: Any
    embedded: int | None
    positions: int | None


def model_folder(spec: TrialSpec) -> Path | None:
    """The folder of the spec's model on this machine; None for one of the hub that is not there."""
    if Path(spec.model_source).is_absolute():
        return Path(spec.model_source)
    return cached(HubModel(spec.model_source, spec.revision, spec.execution.allow_bin_weights))


def check_model(specs: Sequence[TrialSpec], found: Findings) -> CheckedModel | None:
    """Adds the faults of a model to `found`, all specs being of it; returns the model if its data
    can be tokenized. Raises InputError if it has no tokenizer that can be loaded."""
    spec = specs[0]
    folder = model_folder(spec)
    assert folder is not None
    name = str(spec.knobs["model"])
    config = _config(folder, name, found)
    faults: list[str] = []
    if not holds_tensors(folder):
        found.without_weights.append(name)
    elif config is not None:
        faults = weight_faults(folder, allow_bin=spec.execution.allow_bin_weights)
    found.faults += [f"model: {name} {fault}" for fault in faults]
    if config is not None and not faults:
        found.faults += _building_faults(config, name, specs)
    tokenizer = tokenizer_of(spec)
    text = None if config is None else config.get_text_config()
    asks_template = any(chat_format_of(each.knobs) == AUTO for each in specs)
    template = template_faults(tokenizer) if asks_template else []
    found.faults += [f"model: {name}: {fault}" for fault in template]
    model = CheckedModel(
        name=name,
        tokenizer=tokenizer,
        embedded=getattr(text, "vocab_size", None),
        positions=getattr(text, "max_position_embeddings", None),
    )
    if model.embedded is not None:
        fault = pad_token_fault(tokenizer, name, embedded=model.embedded)
        found.faults += [] if fault is None else [fault]
    return None if template else model


def _building_faults(config: Any, name: str, specs: Sequence[TrialSpec]) -> Iterator[str]:
    """What is wrong with quantizations and `target_modules`, from the model without weights."""
    asked = {json.dumps([spec.knobs.get(knob) for knob in _BUILDING]): spec for spec in specs}
    for spec in asked.values():
        targets = spec.knobs.get("target_modules", ALL_LINEAR)
        if targets == ALL_LINEAR and not quantization_of(spec.knobs).loader:
            continue
        try:
            model = base_on_meta(config, spec.knobs)
        except InputError as error:
            yield from error.messages
        else:
            yield from (
                f"model: {name}: {fault}" for fault in make_method(spec.knobs).faults(model)
            )


def _config(folder: Path, name: str, found: Findings) -> Any:
    """The configuration as transformers reads it; None, with a fault, if it does not."""
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        found.faults.append(
            f"model: {name} has a config.json that can't be used: {first_line(error)}"
        )
        return None
