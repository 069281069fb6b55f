"""Method: what training, planning, reports and loading ask of a way to adapt a base model."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Method(ABC):
    """A way to adapt a base model; a subclass's fields are its hyperparameters, each a knob.

    A subclass sets the class attributes without a default here. The driver decides by them and
    never by a method's name.
    """

    title: ClassVar[str]  # names a model that it made in a table, as "LoRA"
    activity: ClassVar[str]  # names its training in a sentence: "... of MODEL needs 3 GiB"
    label: ClassVar[str]  # its part of a trial's label; "" where the hyperparameters suffice

    trains: ClassVar[bool] = True  # False for what evaluates the base as it is
    is_baseline: ClassVar[bool] = False  # it runs by itself on every base, and in no space
    trains_whole_base: ClassVar[bool] = False  # gradients and optimizer states of the base's size
    saves_model: ClassVar[bool] = False  # `save` writes a whole model, not an addition to the base
    allows_quantized_base: ClassVar[bool] = True
    allows_zero: ClassVar[bool] = True  # DeepSpeed may split what it trains over the workers
    loading_imports: ClassVar[tuple[str, ...]] = ()  # import statements that `loading_lines` need

    @classmethod
    def hyperparameters(cls) -> tuple[str, ...]:
        """The names of its fields."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def loading_lines(cls, folder: str) -> list[str]:
        """Python that makes `model`, of transformers, the trained model, without this project.

        `folder` is what `save` wrote. Before these lines `model` is the base, or, where the method
        saves a whole model, the saved one.
        """
        del folder
        return ["model.eval()"]

    def relative_size(self) -> float:
        """How many numbers it trains, in any unit: orders its own configurations by memory. What
        trains none has a measure of the memory that asking takes.

        0 where its hyperparameters do not decide it. A forecast counts the parameters of the model
        that `attach` makes.
        """
        return 0.0

    def faults(self, base: PreTrainedModel) -> list[str]:
        """Why it can't adapt this base, which may be on the meta device; [] if it can.

        `attach` raises InputError with the same messages.
        """
        del base
        return []

    @abstractmethod
    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        """Returns the model to train; the same seed gives the same initial parameters.

        Its trained parameters, and no others, require gradients. `in_place`: the base is not used
        afterwards, so its weights may be overwritten.
        """

    @abstractmethod
    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        """Returns the model that `save` wrote, on its base, without gradients.

        Raises InputError if `folder` does not hold it as safetensors.
        """

    @abstractmethod
    def save(self, model: Any, folder: Path) -> None:
        """Writes the trained parameters to `folder` as safetensors."""

    @abstractmethod
    def detach(self, model: Any) -> PreTrainedModel:
        """Returns the base as it was before `attach` or `load`."""


@dataclass(frozen=True)
class Untrained(Method):
    """The base itself: the baseline that every trained trial is compared with."""

    title: ClassVar[str] = "base"
    activity: ClassVar[str] = "evaluation"
    label: ClassVar[str] = "untrained"
    trains: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = True

    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        del seed, in_place
        return base

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        del folder
        return base

    def save(self, model: Any, folder: Path) -> None:
        """Writes nothing."""

    def detach(self, model: Any) -> PreTrainedModel:
        base: PreTrainedModel = model
        return base
