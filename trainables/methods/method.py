"""Method: what the training loop asks of a way to adapt a base; Untrained, the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Method(Protocol):
    """What the training loop asks of a method."""

    trains: ClassVar[bool]
    makes_model: ClassVar[bool]  # what `save` writes is a whole model, not an addition to the base

    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        """The model to train; the same seed gives the same initial parameters.

        `in_place`: nobody wants the base afterwards, so its weights themselves may be trained.
        """

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        """The model that `save` wrote, on its base, not to be trained; InputError if there is
        none in safetensors."""

    def save(self, model: Any, folder: Path) -> None:
        """Writes what is trained, as it is now, to `folder`; safetensors only."""

    def detach(self, model: Any) -> PreTrainedModel:
        """The base as it was before `attach` or `load`."""


@dataclass(frozen=True)
class Untrained:
    """The base itself: the baseline that every trained trial is compared with."""

    trains: ClassVar[bool] = False
    makes_model: ClassVar[bool] = False

    def attach(self, base: PreTrainedModel, *, seed: int, in_place: bool = False) -> Any:
        del seed, in_place
        return base

    def load(self, base: PreTrainedModel, folder: Path) -> Any:
        del folder
        return base

    def save(self, model: Any, folder: Path) -> None:
        """There is nothing to save."""

    def detach(self, model: Any) -> PreTrainedModel:
        base: PreTrainedModel = model
        return base
