"""TrialFolder: writes the files of one trial, and publishes them where a bucket is the truth."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.spec.trial_spec import TrialSpec
from trainables.storage.atomic_files import (
    digest,
    finite,
    sync,
    temporary_path,
    write_bytes,
    write_json,
)
from trainables.storage.errors import storage_errors
from trainables.storage.sealed_json import with_checksum
from trainables.storage.trial_reader import FILES, TrialReader

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class TrialFolder(TrialReader):
    """The folder of one trial: `storage/name/trials/TRIAL_ID`."""

    @property
    def place(self) -> str:
        """What `trial_at` is given for this folder: its path or URL."""
        return str(self.path) if self.mirror is None else self.mirror.url

    def pull(self) -> None:
        """Fetches what another machine has published; not checkpoints, nor what was trained.

        Nothing is asked of a folder on a disk. Raises StorageError.
        """
        if self.mirror is not None and not self._was_taken_over_here():
            self.mirror.pull()

    def pull_all(self) -> None:
        """The working copy is what lies in the bucket, checkpoints included: for whoever is about
        to train it, and has to tell from where before it takes the folder over."""
        if self.mirror is not None:
            from trainables.storage.working_copy import not_trained

            self.mirror.pull(not_trained, prune=True)

    def pull_trained(self, *, model: bool = True) -> None:
        """Fetches the adapter, and the model if there is one and it is asked for, which then lie in
        their folders. Raises StorageError."""
        if self.mirror is not None:
            folders = ("adapter/", "model/") if model else ("adapter/",)
            self.mirror.pull(lambda name: name.startswith(folders))

    def write_spec(self, spec: TrialSpec, suggestion: Mapping[str, Any]) -> None:
        """The spec, with the sampler's parameters that led to it (see
        `orchestrator.search.searcher`)."""
        self._write(self.spec_file, {**spec.to_json(), "suggestion": dict(suggestion)})

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Also notes the digests of the predictions and the adapter or model that lie there now."""
        self._write(self.summary_file, {**summary, FILES: self._digests("selection")})

    def write_estimate(self, prediction: Mapping[str, Any]) -> None:
        """What the driver's simulation says of the trial, before it is launched."""
        self._write(self.estimate_file, prediction)

    def write_progress(self, progress: Mapping[str, Any]) -> None:
        """What a trial that is not done has reached, for `orchestrator.status`."""
        self._write_here(self.progress_file, progress)
        self._sign(self.progress_file)

    def write_report_score(self, score: Mapping[str, Any]) -> None:
        """Also notes the digest of the report split's predictions that lie there now."""
        self._write(self.report_score_file, {**score, FILES: self._digests("report")})

    def write_predictions(self, rows: Iterable[Mapping[str, Any]], split: str = "selection") -> str:
        """Returns the sha256 of what it has written."""
        lines = prediction_lines(rows)
        write_bytes(self.predictions_file(split), lines, guard=self.guard)
        self._publish(self.predictions_file(split))
        return hashlib.sha256(lines).hexdigest()

    def write_adapter(self, save: Callable[[Path], None]) -> None:
        """`save` writes the adapter into the folder that it is given; whole or not there.

        Durable once it returns; raises StorageError.
        """
        self._write_folder(self.adapter_folder, save)

    def write_model(self, save: Callable[[Path], None]) -> None:
        """As `write_adapter`, of a whole model."""
        self._write_folder(self.model_folder, save)
        self._remove(self.removed_model_file)

    def discard_model(self, reason: str) -> int:
        """Removes the model that full fine-tuning made, and notes why; returns its bytes."""
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
        """Publishes the end of the log and the progress, where a bucket is the truth."""
        if self.mirror is not None:
            self.mirror.flush()

    def append_reported_step(self, step: int) -> None:
        """The trial tells of this step now; forgotten with its checkpoints."""
        self._append(self.reported_steps_file, str(step))
        self._sign(self.reported_steps_file)

    def set_aside(self, file: Path) -> None:
        """A damaged file is kept for a person to look at, under a name that nothing reads."""
        self.guard()
        aside = file.with_name(f"{file.name}.damaged")
        with storage_errors(file):
            file.replace(aside)
        if self.mirror is not None:
            self.mirror.publish(aside)
            self.mirror.retract_files(file)

    def discard_result(self) -> None:
        """Forgets how the trial ended, so that it runs again from its last checkpoint."""
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

    def _was_taken_over_here(self) -> bool:
        """Whether the last host to take the trial over writes to this very working copy."""
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
        with storage_errors(file), os.fdopen(os.open(file, flags, 0o644), "a") as lines:
            lines.write(line.rstrip("\n") + "\n")

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
    """What a file of predictions holds."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
