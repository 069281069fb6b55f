"""TrialFolder: writes the files of one trial, and publishes them if the run is in a bucket."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.spec.trial_spec import TrialSpec
from trainables.storage.atomic_files import (
    digest,
    finite,
    give_usual_mode,
    sync,
    temporary_path,
    write_bytes,
    write_json,
)
from trainables.storage.errors import storage_errors
from trainables.storage.sealed_json import with_checksum
from trainables.storage.trial_reader import FILES, TrialReader


@dataclass(frozen=True)
class TrialFolder(TrialReader):
    """The folder of one trial: `storage/name/trials/TRIAL_ID`."""

    @property
    def place(self) -> str:
        """The path or URL by which `trial_at` finds this folder."""
        return str(self.path) if self.mirror is None else self.mirror.url

    def pull(self) -> None:
        """Fetches what other machines have published, except checkpoints, adapters and models.

        Does nothing for a folder on a disk. Raises StorageError.
        """
        if self.mirror is not None and not self._is_owned_here():
            self.mirror.pull()

    def pull_all(self) -> None:
        """Makes the working copy equal to the bucket, checkpoints included.

        A host calls it before it acquires the ownership, to know at which step the trial resumes.
        """
        if self.mirror is not None:
            from trainables.storage.working_copy import not_trained

            self.mirror.pull(not_trained, prune=True)

    def pull_trained(self, *, model: bool = True) -> None:
        """Fetches the adapter and, if `model`, the model. Raises StorageError."""
        if self.mirror is not None:
            folders = ("adapter/", "model/") if model else ("adapter/",)
            self.mirror.pull(lambda name: name.startswith(folders))

    def write_spec(self, spec: TrialSpec, suggestion: Mapping[str, Any]) -> None:
        """Writes the spec and the sampler's parameters for it (`orchestrator.search.searcher`)."""
        self._write(self.spec_file, {**spec.to_json(), "suggestion": dict(suggestion)})

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes the summary with the digests of the current predictions and adapter or model."""
        self._write(self.summary_file, {**summary, FILES: self._digests("selection")})

    def write_estimate(self, prediction: Mapping[str, Any]) -> None:
        """Writes the result of the trial's simulation, before it is launched."""
        self._write(self.estimate_file, prediction)

    def write_progress(self, progress: Mapping[str, Any]) -> None:
        """Writes the progress of a trial that is not done, for `orchestrator.status`."""
        self._write_here(self.progress_file, progress)
        self._sign(self.progress_file)

    def write_report_score(self, score: Mapping[str, Any]) -> None:
        """Writes the score with the digest of the current predictions on the report split."""
        self._write(self.report_score_file, {**score, FILES: self._digests("report")})

    def write_predictions(self, rows: Iterable[Mapping[str, Any]], split: str = "selection") -> str:
        """Writes the predictions on a split; returns the sha256 of the file."""
        lines = prediction_lines(rows)
        write_bytes(self.predictions_file(split), lines, guard=self.guard)
        self._publish(self.predictions_file(split))
        return hashlib.sha256(lines).hexdigest()

    def write_adapter(self, save: Callable[[Path], None]) -> None:
        """Replaces the adapter atomically; `save` writes it to the folder that it is given.

        It is durable once this returns. Raises StorageError.
        """
        self._write_folder(self.adapter_folder, save)

    def write_model(self, save: Callable[[Path], None]) -> None:
        """As `write_adapter`, for a whole model."""
        self._write_folder(self.model_folder, save)
        self._remove(self.removed_model_file)

    def discard_model(self, reason: str) -> int:
        """Deletes the model and records the reason; returns its size in bytes."""
        self.guard()
        size = self.model_bytes
        self._write(self.removed_model_file, {"reason": reason, "bytes": size})
        if self.model_folder.is_dir():
            with storage_errors(self.model_folder):
                shutil.rmtree(self.model_folder)
        if self.mirror is not None:
            self.mirror.retract(self.model_folder)
        return size

    def append_log(self, line: str) -> None:
        self._append(self.log_file, line)
        self._sign(self.log_file)

    def publish_signs(self) -> None:
        """Publishes log and progress of a run in a bucket."""
        if self.mirror is not None:
            self.mirror.flush()

    def append_reported_step(self, step: int) -> None:
        """Records that this step was reported; the record is deleted with the checkpoints."""
        self._append(self.reported_steps_file, str(step))
        self._sign(self.reported_steps_file)

    def set_aside(self, file: Path) -> None:
        """Renames a damaged file, for a person to look at, so that no program reads it."""
        self.guard()
        aside = file.with_name(f"{file.name}.damaged")
        with storage_errors(file):
            file.replace(aside)
        if self.mirror is not None:
            self.mirror.publish(aside)
            self.mirror.retract_files(file)

    def discard_result(self) -> None:
        """Deletes the trial's result, so that it runs again from its last checkpoint."""
        self.guard()
        self._remove(self.summary_file, self.report_score_file, self.removed_model_file)

    def discard_checkpoints(self) -> None:
        self.guard()
        shutil.rmtree(self.checkpoints_folder, ignore_errors=True)
        if self.mirror is not None:
            self.mirror.retract(self.checkpoints_folder)

    def _write_folder(self, place: Path, save: Callable[[Path], None]) -> None:
        temporary = temporary_path(place)
        with storage_errors(place):
            try:
                save(temporary)
                for written in (*temporary.rglob("*"), temporary):
                    if written.is_file():
                        give_usual_mode(written)
                    sync(written)
                self.guard()
                shutil.rmtree(place, ignore_errors=True)
                temporary.replace(place)
                sync(self.path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        if self.mirror is not None:
            self.mirror.publish_folder(place)

    def _remove(self, *files: Path) -> None:
        for file in files:
            with storage_errors(file):
                file.unlink(missing_ok=True)
        if self.mirror is not None:
            self.mirror.retract_files(*files)

    def _publish(self, file: Path) -> None:
        if self.mirror is not None:
            self.mirror.publish(file)

    def _sign(self, file: Path) -> None:
        if self.mirror is not None:
            self.mirror.sign(file)

    def _is_owned_here(self) -> bool:
        """Whether the host that owns the trial writes to this working copy."""
        assert self.mirror is not None
        owner = self.mirror.store.get(f"{self.mirror.prefix}{self.owner_file.name}")
        try:
            return owner is not None and owner.content == self.owner_file.read_bytes()
        except OSError:
            return False

    def _append(self, file: Path, line: str) -> None:
        self.guard()
        file.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with storage_errors(file), os.fdopen(os.open(file, flags, 0o666), "ab") as lines:
            lines.write((line.rstrip("\n") + "\n").encode("utf-8", "backslashreplace"))

    def _write(self, file: Path, value: Mapping[str, Any]) -> None:
        self._write_here(file, value)
        self._publish(file)

    def _write_here(self, file: Path, value: Mapping[str, Any]) -> None:
        write_json(file, with_checksum(finite(value), place=self._place(file)), guard=self.guard)

    def _digests(self, split: str) -> dict[str, str | None]:
        folders = (self.adapter_folder, self.model_folder) if split == "selection" else ()
        trained = [file for folder in folders for file in sorted(folder.glob("*"))]
        files = [self.predictions_file(split), *trained]
        return {str(file.relative_to(self.path)): digest(file) for file in files if file.is_file()}


def prediction_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The content of a file of predictions."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
