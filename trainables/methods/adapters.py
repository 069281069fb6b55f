"""Adapters: small trained additions to a frozen base (LoRA)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.errors import InputError
from trainables.methods.method import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank adapters (Hu et al. 2021) through PEFT; the update is scaled by alpha / rank."""

    title: ClassVar[str] = "LoRA"
    activity: ClassVar[str] = "lora"
    label: ClassVar[str] = ""
    loading_imports: ClassVar[tuple[str, ...]] = ("from peft import PeftModel",)

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"

    @classmethod
    def loading_lines(cls, folder: str) -> list[str]:
        return [f"model = PeftModel.from_pretrained(model, {folder!r}).eval()"]

    def relative_size(self) -> float:
        """Named modules count as half of all linear layers."""
        modules = 1.0 if isinstance(self.target_modules, str) else 0.5
        return modules * self.rank

    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        import torch
        from peft import LoraConfig, get_peft_model

        del in_place  # the base's weights are not changed
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
