"""TrialContext: all that one trial needs to run."""

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
    """A trial's spec, the base that it borrows, its data and its folder.

    `heartbeat` is called after every optimizer step and every batch of an evaluation; it may raise
    Interrupted. `sample` is called once per event for system metrics (`Event.system`).
    `device_shared`: other trials may use its device at the same time. `load_seconds`: the time for
    which this attempt held the device while its base and data were loaded. `process_group`: the
    workers that train it together. `in_place`: no other trial borrows the base.
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
        """The number of devices that it holds: one per worker."""
        return int(self.spec.knobs.get("workers", 1))

    @property
    def method(self) -> Method:
        return self.spec.method

    @property
    def result_folder(self) -> Path:
        """The folder of what its method saves: an adapter or a whole model."""
        return self.folder.trained_folder(self.spec)
