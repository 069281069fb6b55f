"""METHODS: how a base becomes a trained model, one frozen dataclass each.

A method's fields are its hyperparameters, with their defaults; `attach` puts its trainable
parameters on a frozen base and `detach` takes them off again. LIGHT until `attach` is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from trainables.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Method(Protocol):
    """What the training loop asks of a method."""

    trains: ClassVar[bool]

    def attach(self, base: PreTrainedModel, *, seed: int) -> Any:
        """The model to train; the same seed gives the same initial parameters."""

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        """The model that `save` wrote, on its base, not to be trained; InputError if there is
        none in safetensors."""

    def save(self, model: Any, folder: Path) -> None:
        """Writes what `attach` added, as it is now, to `folder`; safetensors only."""

    def detach(self, model: Any) -> PreTrainedModel:
        """The base as it was before `attach` or `load`."""


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021) through PEFT; the update is scaled by alpha / rank."""

    trains: ClassVar[bool] = True

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"

    def attach(self, base: PreTrainedModel, *, seed: int) -> Any:
        import torch
        from peft import LoraConfig, get_peft_model

        targets = self.target_modules
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # PEFT takes a float here
            lora_dropout=self.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(seed)
        return get_peft_model(base, config)

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        from peft import PeftModel

        if not (folder / "adapter_model.safetensors").is_file():  # PEFT would unpickle a *.bin
            raise InputError(
                f"{folder}: has no adapter_model.safetensors. Give the folder that a trial wrote."
            )
        return PeftModel.from_pretrained(base, folder)

    def save(self, model: Any, folder: Path) -> None:
        # "auto" would ask the hub whether the base's vocabulary has grown
        model.save_pretrained(folder, save_embedding_layers=False)

    def detach(self, model: Any) -> PreTrainedModel:
        base: PreTrainedModel = model.unload()
        return base


@dataclass(frozen=True)
class Untrained:
    """The base itself: the baseline that every trained trial is compared with."""

    trains: ClassVar[bool] = False

    def attach(self, base: PreTrainedModel, *, seed: int) -> Any:
        del seed
        return base

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        del folder
        return base

    def save(self, model: Any, folder: Path) -> None:
        """There is nothing to save."""

    def detach(self, model: Any) -> PreTrainedModel:
        base: PreTrainedModel = model
        return base


METHODS: dict[str, type[LoRA | Untrained]] = {"lora": LoRA, "untrained": Untrained}


def make_method(knobs: Mapping[str, Any]) -> LoRA | Untrained:
    """The method that canonical knobs name, with its hyperparameters from them."""
    chosen = METHODS[knobs["method"]]
    given = {field.name: knobs[field.name] for field in dataclasses.fields(chosen)}
    return chosen(**{name: _frozen(value) for name, value in given.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
