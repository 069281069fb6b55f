"""Adapters: small trained additions to a frozen base (LoRA)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.errors import InputError
from trainables.methods.loading_faults import key_faults, refuse_faults
from trainables.methods.method import Method
from trainables.methods.target_modules import ALL_LINEAR, target_faults

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WEIGHTS = "adapter_model.safetensors"


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
    target_modules: str | tuple[str, ...] = ALL_LINEAR

    @classmethod
    def loading_lines(cls, folder: str) -> list[str]:
        return [f"model = PeftModel.from_pretrained(model, {folder!r}).eval()"]

    def relative_size(self) -> float:
        """Named modules count as half of all linear layers."""
        modules = 1.0 if isinstance(self.target_modules, str) else 0.5
        return modules * self.rank

    def faults(self, base: PreTrainedModel) -> list[str]:
        return target_faults(base, self.target_modules)

    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        import torch
        from peft import LoraConfig, get_peft_model

        del in_place  # the base's weights are not changed
        if faults := self.faults(base):
            raise InputError(faults)
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

        if not (folder / _WEIGHTS).is_file():  # PEFT would unpickle a *.bin
            raise InputError(
                f"{folder}: has no adapter_model.safetensors. Give the folder that a trial wrote."
            )
        model = PeftModel.from_pretrained(base, folder)
        if faults := _key_faults(model, folder):
            model.unload()
            refuse_faults(folder, faults)
        return model

    def save(self, model: Any, folder: Path) -> None:
        # "auto" would ask the hub whether the base's vocabulary has grown
        model.save_pretrained(folder, save_embedding_layers=False)

    def detach(self, model: Any) -> PreTrainedModel:
        base: PreTrainedModel = model.unload()
        return base


def _key_faults(model: Any, folder: Path) -> list[str]:
    """PEFT leaves what the file lacks as it was initialized, and ignores what it has too many."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / _WEIGHTS, framework="pt") as opened:
        saved = set(opened.keys())
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    found = {"missing_keys": wanted - saved, "unexpected_keys": saved - wanted}
    return key_faults({**found, "mismatched_keys": ()})
