"""Trial, all that one trial needs to run, and Progress, how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.data.trial_data import TrialData
from trainables.methods.method import Method
from trainables.models.base import Base
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.trial_folder import TrialFolder
from trainables.training.process_group import ProcessGroup, SingleProcess


@dataclass(frozen=True)
class TrialContext:
    """All that a trial needs to run: what it is, the base it borrows, its data and its folder.

    `heartbeat` is called after every optimizer step and every batch of an evaluation; it may
    raise Interrupted. `sample` is asked once per event what the machine is doing (`Event.system`).
    `device_shared`: other trials may compute on its device meanwhile. `load_seconds`: what this
    attempt held the device for before it began, while its base and its data were loaded.
    `process_group`: the workers that train it together. `in_place`: no other trial borrows the
    base.
    """

    spec: TrialSpec
    base: Base
    folder: TrialFolder
    data: TrialData
    provenance: Mapping[str, Any] = field(default_factory=dict)
    heartbeat: Callable[[], None] = lambda: None
    sample: Callable[[], Mapping[str, float]] = dict
    device_shared: bool = False
    load_seconds: float = 0.0
    process_group: ProcessGroup = field(default_factory=SingleProcess)
    in_place: bool = False

    @property
    def devices(self) -> int:
        """How many devices it holds at once: one for each of its workers."""
        return int(self.spec.knobs.get("workers", 1))

    @property
    def method(self) -> Method:
        return self.spec.method

    @property
    def result_folder(self) -> Path:
        """What its method saves: an adapter, or a whole model."""
        return self.folder.trained_folder(self.spec)
