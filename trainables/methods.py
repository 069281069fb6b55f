"""METHODS: how a base becomes a trained model, one frozen dataclass each.

A method's fields are its hyperparameters, with their defaults; `attach` makes the model to train
from a frozen base and `detach` gives the base back. LIGHT until `attach` is called.
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
    makes_model: ClassVar[bool]  # what `save` writes is a whole model, not an addition to the base

    def attach(self, base: PreTrainedModel, *, seed: int, spends_base: bool = False) -> Any:
        """The model to train; the same seed gives the same initial parameters.

        `spends_base`: nobody wants the base afterwards, so its weights themselves may be trained.
        """

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        """The model that `save` wrote, on its base, not to be trained; InputError if there is
        none in safetensors."""

    def save(self, model: Any, folder: Path) -> None:
        """Writes what is trained, as it is now, to `folder`; safetensors only."""

    def detach(self, model: Any) -> PreTrainedModel:
        """The base as it was before `attach` or `load`."""


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021) through PEFT; the update is scaled by alpha / rank."""

    trains: ClassVar[bool] = True
    makes_model: ClassVar[bool] = False

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"

    def attach(self, base: PreTrainedModel, *, seed: int, spends_base: bool = False) -> Any:
        import torch
        from peft import LoraConfig, get_peft_model

        del spends_base  # its bytes stay as they are
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
class Full:
    """All parameters of an unquantized base (full fine-tuning).

    What is trained, and saved, is a copy in float32: master weights, whatever the compute dtype,
    because an update of bfloat16 weights by a small learning rate is mostly rounded away
    (Micikevicius et al. 2017). Matrix products run in the compute dtype. While the copy is there,
    the base waits in the host's memory, so that it takes none of a GPU's. `load` reads a saved
    model in the base's own dtype: what the base fits in, it fits in.
    """

    trains: ClassVar[bool] = True
    makes_model: ClassVar[bool] = True

    def attach(self, base: PreTrainedModel, *, seed: int, spends_base: bool = False) -> Any:
        import copy

        import torch

        device = base.device
        if not spends_base:
            _park(base)
        own = base if spends_base else copy.deepcopy(base)
        model: Any = own.float().to(device)
        model.requires_grad_(True)
        _lend(base, model, device)
        torch.manual_seed(seed)
        return model

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        if not any(folder.glob("*.safetensors")):
            raise InputError(f"{folder}: has no *.safetensors. Give the folder that a trial wrote.")
        device = base.device
        _park(base)
        model: Any = type(base).from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=base.dtype,
            device_map={"": device},
        )
        model.generation_config = base.generation_config
        model.requires_grad_(False)
        _lend(base, model, device)
        return model.eval()

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)

    def detach(self, model: Any) -> PreTrainedModel:
        base, device = model.__dict__.pop(_LENT)
        lent: PreTrainedModel = base.to(device)
        return lent


_LENT = "lent_by"  # of a model in full fine-tuning: its base, and the device that it comes back to


def _park(base: Any) -> None:
    """Its bytes stay as they are; on a CPU nothing moves."""
    base.to("cpu")


def _lend(base: Any, model: Any, device: Any) -> None:
    """Past Module.__setattr__, which would make the base a part of the model."""
    model.__dict__[_LENT] = (base, device)


@dataclass(frozen=True)
class Untrained:
    """The base itself: the baseline that every trained trial is compared with."""

    trains: ClassVar[bool] = False
    makes_model: ClassVar[bool] = False

    def attach(self, base: PreTrainedModel, *, seed: int, spends_base: bool = False) -> Any:
        del seed, spends_base
        return base

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        del folder
        return base

    def save(self, model: Any, folder: Path) -> None:
        """There is nothing to save."""

    def detach(self, model: Any) -> PreTrainedModel:
        base: PreTrainedModel = model
        return base


AnyMethod = LoRA | Full | Untrained

METHODS: dict[str, type[AnyMethod]] = {"lora": LoRA, "full": Full, "untrained": Untrained}


def make_method(knobs: Mapping[str, Any]) -> AnyMethod:
    """The method that canonical knobs name, with its hyperparameters from them."""
    chosen = METHODS[knobs["method"]]
    given = {field.name: knobs[field.name] for field in dataclasses.fields(chosen)}
    return chosen(**{name: _frozen(value) for name, value in given.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
