"""TrialReader: reads the files of a trial, and checks whether they are as they were written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.spec.trial_spec import TrialSpec
from trainables.storage.atomic_files import Guard, Json, digest, unguarded
from trainables.storage.layout import TrialFiles
from trainables.storage.sealed_json import DamagedError, verified

if TYPE_CHECKING:
    from trainables.storage.mirror import Mirror

DAMAGED = "damaged or gone"
FILES = "files"  # in a summary or score: the digests of the files that belong to it


@dataclass(frozen=True)
class TrialReader(TrialFiles):
    """Reads a trial's folder; `guard` and `mirror` are as in `trainables.storage.run_folder`."""

    guard: Guard = field(default=unguarded, compare=False, repr=False)
    mirror: Mirror | None = field(default=None, compare=False, repr=False)

    @property
    def done(self) -> bool:
        return self.summary() is not None

    def spec(self) -> TrialSpec:
        """Raises FileNotFoundError, or DamagedError."""
        return self.spec_and_suggestion()[0]

    def spec_and_suggestion(self) -> tuple[TrialSpec, Json]:
        """As `spec`, with the sampler's parameters that `write_spec` was given."""
        written = self.read(self.spec_file)
        try:
            spec, suggestion = TrialSpec.from_json(written), dict(written["suggestion"])
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"damaged: no spec ({error!r})") from error
        if spec.trial_id != self.trial_id:
            raise DamagedError(f"damaged: it is the spec of trial {spec.trial_id}")
        return spec, suggestion

    def trained_folder(self, spec: TrialSpec) -> Path:
        """The folder of what the trial's method saves: an adapter or a whole model."""
        return self.model_folder if spec.method.saves_model else self.adapter_folder

    def summary(self) -> Json | None:
        return self._read_or_none(self.summary_file)

    def estimate(self) -> Json | None:
        """The result of the simulation, or None if there is none or the file is damaged."""
        return self._read_or_none(self.estimate_file)

    def progress(self) -> Json | None:
        return self._read_or_none(self.progress_file)

    def report_score(self) -> Json | None:
        return self._read_or_none(self.report_score_file)

    def reported_steps(self, *, after: int) -> frozenset[int]:
        """The steps after `after` that the trial has reported; they may be later than its last
        checkpoint."""
        try:
            *lines, _torn = self.reported_steps_file.read_bytes().split(b"\n")
        except OSError:
            return frozenset()
        steps = (int(line) for line in lines if line.isdigit() and len(line) < 16)
        return frozenset(step for step in steps if step > after)

    def sign_of_life(self, *, every: float) -> object:
        """A value that changes whenever a host writes that the trial runs; no clocks are compared.

        A bucket is asked at most every `every` seconds; if it is unreachable the value stays.
        """
        version = None
        if self.mirror is not None:
            with contextlib.suppress(OSError):
                version = self.mirror.look(self.progress_file, every=every)
        try:
            found = self.progress_file.stat()
        except OSError:
            return version
        return found.st_mtime_ns, found.st_ino, version

    def read(self, file: Path) -> Json:
        """Reads a JSON file of the trial; raises FileNotFoundError, or DamagedError."""
        return verified(file.read_bytes(), place=self._place(file))

    def damaged_files(self, names: Iterable[str] | None = None) -> list[Path]:
        """The files that do not match the digests in the trial's summary or report score.

        `names` are relative to the trial's folder, by default its predictions on both splits.
        Raises PermissionError for a file that may not be read, and so may be sound.
        """
        noted = self._noted_files(names).items()
        return [self.path / name for name, known in noted if self._is_damaged(name, known)]

    def unusable_files(self, names: Iterable[str] | None = None) -> dict[Path, str]:
        """As `damaged_files`, with what is wrong with each; a file that may not be read is one."""
        found = {}
        try:
            noted = self._noted_files(names)
        except PermissionError:  # who reads the summary says so
            return {}
        for name, known in noted.items():
            try:
                if self._is_damaged(name, known):
                    found[self.path / name] = DAMAGED
            except PermissionError as error:
                found[self.path / name] = f"can't be read ({error.strerror})"
        return found

    def is_sound(self) -> bool:
        """Whether spec, summary, score and predictions are undamaged; only the spec must exist."""
        try:
            self.spec()
            for file in (self.summary_file, self.report_score_file):
                if file.exists():
                    self.read(file)
        except (OSError, DamagedError):
            return False
        return not self.damaged_files()

    def damaged_adapter(self) -> list[Path]:
        """As `damaged_files`, for the adapter or model; a deleted model is not damaged."""
        return self.damaged_files(self._trained_names())

    def unusable_adapter(self) -> dict[Path, str]:
        """As `unusable_files`, for the adapter or model."""
        try:
            return self.unusable_files(self._trained_names())
        except PermissionError:  # as there
            return {}

    @property
    def model_was_removed(self) -> bool:
        return self._read_or_none(self.removed_model_file) is not None

    @property
    def model_bytes(self) -> int:
        """The size of the trained model, on this disk or in the bucket; 0 without one."""
        files = [file for file in self.model_folder.rglob("*") if file.is_file()]
        elsewhere = self.mirror.elsewhere_bytes("model") if self.mirror is not None else 0
        return sum(file.stat().st_size for file in files) + elsewhere

    def _trained_names(self) -> list[str]:
        folders = ("adapter/",) if self.model_was_removed else ("adapter/", "model/")
        return [name for name in self._noted(self.summary_file) if name.startswith(folders)]

    def _noted_files(self, names: Iterable[str] | None) -> Json:
        """The noted digests of files, by default of the predictions."""
        noted = {**self._noted(self.summary_file), **self._noted(self.report_score_file)}
        predictions = [self.predictions_file(split).name for split in ("selection", "report")]
        wanted = predictions if names is None else names
        return {name: noted[name] for name in wanted if name in noted}

    def _is_damaged(self, name: str, noted: str) -> bool:
        return digest(self.path / name) != noted and not self._is_kept_elsewhere(name)

    def _is_kept_elsewhere(self, name: str) -> bool:
        """Whether the file is in the bucket only; it is checked when it is fetched."""
        if self.mirror is None or (self.path / name).exists():
            return False
        return self.mirror.is_kept_elsewhere(name)

    def _place(self, file: Path) -> str:
        return f"{self.trial_id}/{file.name}"

    def _read_or_none(self, file: Path) -> Json | None:
        """The content of a file without its digests; None if it is missing or damaged."""
        try:
            value = self.read(file)
        except (FileNotFoundError, IsADirectoryError, DamagedError):
            return None
        return {name: item for name, item in value.items() if name != FILES}

    def _noted(self, file: Path) -> Json:
        try:
            noted = self.read(file).get(FILES)
        except (FileNotFoundError, IsADirectoryError, DamagedError):
            return {}
        return noted if isinstance(noted, dict) else {}
