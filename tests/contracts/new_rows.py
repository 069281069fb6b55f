"""A method and two knobs that the project does not have, as a contributor would write them.

The contract tests add them to METHODS and KNOBS and change nothing else. Nothing here imports
torch, so that a driver may add them too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.errors import InputError
from trainables.methods.adapters import LoRA
from trainables.methods.method import Method
from trainables.methods.registry import METHODS
from trainables.spec.checks import boolean, one_of, whole
from trainables.spec.knob import Knob
from trainables.spec.knobs import KNOBS
from trainables.spec.memory_effect import NONE, UP

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FILE = "norms.safetensors"
_ORIGIN = "untrained_norms"  # attribute of the trained model: the base's own scales, by module


@dataclass(frozen=True)
class Norms(Method):
    """The scales of the base's norms, in float32, and nothing else.

    `norms`: "all", or "final" for the one before the head.
    """

    title: ClassVar[str] = "norms"
    activity: ClassVar[str] = "norm tuning"
    label: ClassVar[str] = "norms"
    allows_zero: ClassVar[bool] = False
    loading_imports: ClassVar[tuple[str, ...]] = ("from safetensors.torch import load_file",)

    norms: str = "all"

    @classmethod
    def loading_lines(cls, folder: str) -> list[str]:
        file = str(Path(folder) / _FILE)
        return [f"model.load_state_dict(load_file({file!r}), strict=False)", "model.eval()"]

    def relative_size(self) -> float:
        return 1.0 if self.norms == "all" else 0.1

    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        import torch

        del seed, in_place  # nothing is drawn, and the base's own scales are put aside
        base.requires_grad_(False)
        modules = dict(self._modules(base))
        base.__dict__[_ORIGIN] = {module: module.weight for module in modules.values()}
        for module in modules.values():
            module.weight = torch.nn.Parameter(module.weight.detach().float().clone())
        return base

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        from safetensors.torch import load_file

        if not (folder / _FILE).is_file():
            raise InputError(f"{folder}: has no {_FILE}. Give the folder that a trial wrote.")
        model = self.attach(base, seed=0)
        model.load_state_dict(load_file(folder / _FILE), strict=False)
        return model.requires_grad_(False).eval()

    def save(self, model: Any, folder: Path) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: m.weight.detach().contiguous() for name, m in self._modules(model)}
        save_file({f"{name}.weight": weight for name, weight in trained.items()}, folder / _FILE)

    def detach(self, model: Any) -> PreTrainedModel:
        for module, weight in model.__dict__.pop(_ORIGIN).items():
            module.weight = weight
        base: PreTrainedModel = model
        return base

    def _modules(self, model: Any) -> Iterator[tuple[str, Any]]:
        found = [(n, m) for n, m in model.named_modules() if type(m).__name__.endswith("Norm")]
        yield from found if self.norms == "all" else found[-1:]


@dataclass(frozen=True)
class ShallowLoRA(LoRA):
    """LoRA on the linear layers of the first blocks, its update scaled as PEFT can do it too."""

    adapted_layers: int = 1000
    rank_stabilized: bool = False

    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        import torch
        from peft import LoraConfig, get_peft_model

        del in_place
        linear = [name for name, m in base.named_modules() if isinstance(m, torch.nn.Linear)]
        blocks = [(name, name.partition(".layers.")[2].partition(".")[0]) for name in linear]
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=[n for n, block in blocks if block and int(block) < self.adapted_layers],
            use_rslora=self.rank_stabilized,
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(seed)
        return get_peft_model(base, config)

    def relative_size(self) -> float:
        return super().relative_size() * self.adapted_layers


def _reads(field: str) -> Any:
    def read_by(knobs: Mapping[str, Any]) -> bool:
        return field in METHODS[knobs["method"]].hyperparameters()

    return read_by


NEW_METHODS: Mapping[str, type[Method]] = {"norms": Norms}
METHOD_KNOBS: Mapping[str, Knob] = {
    "norms": Knob("all", one_of("all", "final"), str, _reads("norms"), unsaid=True),
}
NEW_KNOBS: Mapping[str, Knob] = {
    "adapted_layers": Knob(
        1000,
        whole(1),
        int,
        _reads("adapted_layers"),
        unsaid=True,
        memory=UP,
        label="l{adapted_layers}",
        plan_place=9,
    ),
    "rank_stabilized": Knob(
        False,
        boolean,
        bool,
        _reads("rank_stabilized"),
        unsaid=True,
        memory=NONE,
        affects_speed=False,
        label="rs",
    ),
}


def add_rows() -> None:
    """Adds the methods and knobs to METHODS and KNOBS of this process."""
    METHODS.update({**NEW_METHODS, "lora": ShallowLoRA})
    KNOBS.update({**METHOD_KNOBS, **NEW_KNOBS})
