"""METHODS: how a base becomes a trained model, one frozen dataclass each.

A method's fields are its hyperparameters, with their defaults; `attach` puts its trainable
parameters on a frozen base and `detach` takes them off again. LIGHT until `attach` is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Method(Protocol):
    """What the training loop asks of a method."""

    trains: ClassVar[bool]

    def attach(self, base: PreTrainedModel, *, seed: int) -> Any:
        """The model to train; the same seed gives the same initial parameters."""

    def detach(self, model: Any) -> PreTrainedModel:
        """The base as it was before `attach`."""


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
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # PEFT takes a float here
            lora_dropout=self.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(seed)
        return get_peft_model(base, config)

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

    def detach(self, model: Any) -> PreTrainedModel:
        base: PreTrainedModel = model
        return base


METHODS: dict[str, type[LoRA | Untrained]] = {"lora": LoRA, "untrained": Untrained}
