"""Methods that train some of the base's own parameters: biases (BitFit), or the last blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.errors import InputError
from trainables.methods.blocks import blocks_of
from trainables.methods.loading_faults import key_faults, refuse_faults
from trainables.methods.method import Method

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

WEIGHTS = "parameters.safetensors"
_ORIGINALS = "original_parameters"  # attribute of the trained model: what stood in their places


@dataclass(frozen=True)
class Parts(Method):
    """Trains copies of some parameters in float32, in the base itself.

    The copies take the places of the base's own parameters until `detach` puts these back.
    """

    allows_zero: ClassVar[bool] = False  # DeepSpeed has not been tried on it
    loading_imports: ClassVar[tuple[str, ...]] = ("from safetensors.torch import load_file",)

    @classmethod
    def loading_lines(cls, folder: str) -> list[str]:
        file = str(Path(folder) / WEIGHTS)
        return [
            f"trained = load_file({file!r})",
            "model.load_state_dict(trained, strict=False)",
            "model.eval()",
        ]

    @abstractmethod
    def chosen(self, base: PreTrainedModel) -> list[str]:
        """The names of the parameters that it trains; [] if the base has none of them."""

    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        import torch

        del in_place  # what is replaced is kept apart in any case
        if faults := self.faults(base):
            raise InputError(faults)
        known, chosen = dict(base.named_parameters()), {*self.chosen(base)}
        _replace(base, {name: known[name].detach().float().clone() for name in chosen})
        for name, value in base.named_parameters():
            value.requires_grad_(name in chosen)
        torch.manual_seed(seed)
        return base

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        from safetensors.torch import load_file

        file = folder / WEIGHTS
        if not file.is_file():
            raise InputError(f"{folder}: has no {WEIGHTS}. Give the folder that a trial wrote.")
        saved = load_file(file)
        refuse_faults(folder, _faults_of(saved, base, self.chosen(base)))
        _replace(base, {name: value.to(base.device) for name, value in saved.items()})
        base.requires_grad_(False)
        return base

    def save(self, model: Any, folder: Path) -> None:
        from safetensors.torch import save_file

        trained = {
            name: parameter.detach().contiguous()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained, folder / WEIGHTS)

    def detach(self, model: Any) -> PreTrainedModel:
        device = model.device
        for module, name, parameter in model.__dict__.pop(_ORIGINALS):
            parameter.data = parameter.data.to(device)
            module.register_parameter(name, parameter)
        base: PreTrainedModel = model
        return base


@dataclass(frozen=True)
class Bias(Parts):
    """Biases (BitFit, Ben Zaken et al. 2022); where the base has none, the scales of its norms."""

    title: ClassVar[str] = "bias"
    activity: ClassVar[str] = "training of biases"
    label: ClassVar[str] = "bias"

    def chosen(self, base: PreTrainedModel) -> list[str]:
        named = list(_of_text(base))
        biases = [name for name, _ in named if name.endswith("bias")]
        return biases or [n for n, value in named if value.dim() == 1 and n.endswith("weight")]

    def trained_part(self, base: PreTrainedModel) -> str:
        has_biases = any(name.endswith("bias") for name in self.chosen(base))
        return "biases" if has_biases else "the scales of norms, as the base has no biases"

    def faults(self, base: PreTrainedModel) -> list[str]:
        chosen = self.chosen(base)
        if not chosen:
            return ["method: bias: this model has neither biases nor scales of norms. Use lora."]
        rounded = [n for n in chosen if _is_quantized(base.get_submodule(n.rpartition(".")[0]))]
        if not rounded:
            return []
        return [
            f"method: bias: {len(rounded)} of this model's biases are those of quantized layers, "
            "which round them to the compute dtype at each pass. Use quantization: none, or lora."
        ]


@dataclass(frozen=True)
class Partial(Parts):
    """The last `blocks` blocks and, as asked, the final norm and the head.

    A head that is tied to the embeddings is trained with them.
    """

    title: ClassVar[str] = "partial"
    activity: ClassVar[str] = "training of the last blocks"
    label: ClassVar[str] = ""  # as that of `blocks`
    allows_quantized_base: ClassVar[bool] = False

    blocks: int = 2
    train_final_norm: bool = True
    train_head: bool = False

    def relative_size(self) -> float:
        return self.blocks + 0.5 * self.train_head

    def blocks_apart(self) -> int:
        return self.blocks

    def chosen(self, base: PreTrainedModel) -> list[str]:
        trained = [*blocks_of(base)][-self.blocks :]
        if self.train_head:
            trained.append(base.get_output_embeddings())
        wanted = {id(value) for module in trained for value in module.parameters()}
        if self.train_final_norm:
            wanted |= {id(value) for value in _final_norm(base)}
        return [name for name, value in base.named_parameters() if id(value) in wanted]

    def faults(self, base: PreTrainedModel) -> list[str]:
        there = len(blocks_of(base))
        if self.blocks <= there:
            return []
        return [f"blocks: got {self.blocks}; this model has {there}. Use at most {there}, or full."]


def _of_text(base: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of the text decoder and the head, and not those of a tower for images."""
    parts = (base.get_decoder(), base.get_output_embeddings())
    wanted = {id(value) for part in parts for value in part.parameters()}
    return ((name, value) for name, value in base.named_parameters() if id(value) in wanted)


def _final_norm(base: PreTrainedModel) -> Iterator[nn.Parameter]:
    """The vectors of the decoder outside its blocks: the norm behind the last one, and not one of
    the embeddings."""
    inside = {id(value) for value in blocks_of(base).parameters()}
    named = base.get_decoder().named_parameters()
    return (v for n, v in named if v.dim() == 1 and id(v) not in inside and "emb" not in n)


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__module__.startswith("bitsandbytes")


def _replace(base: Any, values: Mapping[str, torch.Tensor]) -> None:
    """Puts new parameters into the places of those with these names, also where they are shared.

    What else a norm has becomes float32 too, and all norms if the embeddings do: torch's norms take
    no parameters of two dtypes, and on a CPU none of fewer bits than their input. What stood there
    waits in host memory, so that it takes none of a GPU's.
    """
    from torch import nn

    known = dict(base.named_parameters())
    new = {id(known[name]): nn.Parameter(value) for name, value in values.items()}
    widens = id(base.get_input_embeddings().weight) in new
    places = [
        (module, name, parameter)
        for module in base.modules()
        if any(id(own) in new for own in module.parameters(recurse=False))
        or (widens and _is_norm(module))
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in new or _is_norm(module)
    ]
    for module, name, parameter in places:
        put = new.get(id(parameter))
        module.register_parameter(name, nn.Parameter(parameter.float()) if put is None else put)
    for *_, parameter in places:
        if parameter.is_cuda:
            parameter.data = parameter.data.cpu()
    base.__dict__[_ORIGINALS] = places


def _is_norm(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and all(value.dim() == 1 for value in own)


def _faults_of(
    saved: Mapping[str, torch.Tensor], base: PreTrainedModel, chosen: Sequence[str]
) -> list[str]:
    known = dict(base.named_parameters())
    shapes = [
        (name, tuple(value.shape), tuple(known[name].shape))
        for name, value in saved.items()
        if name in known and value.shape != known[name].shape
    ]
    found = {"missing_keys": {*chosen} - saved.keys(), "unexpected_keys": saved.keys() - {*chosen}}
    return key_faults({**found, "mismatched_keys": shapes})
