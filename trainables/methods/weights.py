"""Methods that train the base's own parameters (full fine-tuning)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.errors import InputError
from trainables.methods.loading_faults import key_faults, refuse_faults
from trainables.methods.method import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Full(Method):
    """All parameters of an unquantized base (full fine-tuning).

    `attach` trains a copy of the base in float32 (master weights), whatever the compute dtype: most
    updates of bfloat16 weights by a small learning rate are rounded away (Micikevicius et al.
    2017). Matrix products run in the compute dtype. While the copy exists, the base is kept in
    host memory, so that it takes no GPU memory. `load` reads a saved model in the base's dtype, so
    that it fits wherever the base fits.
    """

    title: ClassVar[str] = "full"
    activity: ClassVar[str] = "full fine-tuning"
    label: ClassVar[str] = "full"
    trains_whole_base: ClassVar[bool] = True
    saves_model: ClassVar[bool] = True
    allows_quantized_base: ClassVar[bool] = False

    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        import copy

        import torch

        device = base.device
        if not in_place:
            _offload_base(base)
        own = base if in_place else copy.deepcopy(base)
        model: Any = own.float().to(device)
        model.requires_grad_(True)
        _attach_origin(base, model, device)
        torch.manual_seed(seed)
        return model

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        if not any(folder.glob("*.safetensors")):
            raise InputError(f"{folder}: has no *.safetensors. Give the folder that a trial wrote.")
        device = base.device
        _offload_base(base)
        model: Any
        model, found = type(base).from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=base.dtype,
            device_map={"": device},
            ignore_mismatched_sizes=True,  # they are named here with all others
            output_loading_info=True,
        )
        if faults := key_faults(found):
            base.to(device)
            refuse_faults(folder, faults)
        model.generation_config = base.generation_config
        model.requires_grad_(False)
        _attach_origin(base, model, device)
        return model.eval()

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)

    def detach(self, model: Any) -> PreTrainedModel:
        base, device = model.__dict__.pop(_ORIGIN)
        lent: PreTrainedModel = base.to(device)
        return lent


_ORIGIN = "lent_by"  # attribute of the trained model: its base, and the device to return it to


def _offload_base(base: Any) -> None:
    """Moves the base to host memory; its values do not change."""
    base.to("cpu")


def _attach_origin(base: Any, model: Any, device: Any) -> None:
    """Bypasses Module.__setattr__, which would register the base as a submodule of the model."""
    model.__dict__[_ORIGIN] = (base, device)
