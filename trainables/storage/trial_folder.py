"""TrialFolder: the files of one trial."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.spec.trial_spec import TrialSpec
from trainables.storage.atomic_files import (
    Guard,
    Json,
    digest,
    finite,
    half_written,
    sync,
    unguarded,
    write_bytes,
    write_json,
)
from trainables.storage.errors import storage_errors
from trainables.storage.layout import TrialFiles
from trainables.storage.sealed_json import DamagedError, sealed, unsealed

if TYPE_CHECKING:
    from trainables.storage.mirror import Mirror

FILES = "files"  # in a summary or a score: the digests of the files it was made with


@dataclass(frozen=True)
class TrialFolder(TrialFiles):
    """The folder of one trial: `storage/name/trials/TRIAL_ID`."""

    guard: Guard = field(default=unguarded, compare=False, repr=False)
    mirror: Mirror | None = field(default=None, compare=False, repr=False)

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

    @property
    def done(self) -> bool:
        return self.summary() is not None

    def write_spec(self, spec: TrialSpec, suggestion: Mapping[str, Any]) -> None:
        """The spec, with the sampler's parameters that led to it (see
        `orchestrator.search.searcher`)."""
        self._write(self.spec_file, {**spec.to_json(), "suggestion": dict(suggestion)})

    def spec(self) -> TrialSpec:
        """Raises FileNotFoundError, or DamagedError."""
        return self.spec_and_suggestion()[0]

    def spec_and_suggestion(self) -> tuple[TrialSpec, Json]:
        """As `spec`, with what `write_spec` was given beside it."""
        written = self.read(self.spec_file)
        try:
            spec, suggestion = TrialSpec.from_json(written), dict(written["suggestion"])
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"damaged: no spec ({error!r})") from error
        if spec.trial_id != self.trial_id:
            raise DamagedError(f"damaged: it is the spec of trial {spec.trial_id}")
        return spec, suggestion

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Also notes the digests of the predictions and the adapter or model that lie there now."""
        self._write(self.summary_file, {**summary, FILES: self._digests("selection")})

    def summary(self) -> Json | None:
        return self._read_or_none(self.summary_file)

    def write_prediction(self, prediction: Mapping[str, Any]) -> None:
        """What the driver's simulation says of the trial, before it is launched."""
        self._write(self.prediction_file, prediction)

    def prediction(self) -> Json | None:
        """None where nothing was predicted, or where the file is damaged."""
        return self._read_or_none(self.prediction_file)

    def write_progress(self, progress: Mapping[str, Any]) -> None:
        """What a trial that is not done has reached, for `orchestrator.status`."""
        self._write_here(self.progress_file, progress)
        self._sign(self.progress_file)

    def sign_of_life(self, *, every: float) -> object:
        """Changes whenever a host writes that the trial still runs; no clocks are compared.

        A bucket is asked no more often than `every` seconds; that it can't be says nothing.
        """
        there = None
        if self.mirror is not None:
            with contextlib.suppress(OSError):
                there = self.mirror.look(self.progress_file, every=every)
        try:
            found = self.progress_file.stat()
        except OSError:
            return there
        return found.st_mtime_ns, found.st_ino, there

    def progress(self) -> Json | None:
        return self._read_or_none(self.progress_file)

    def write_report_score(self, score: Mapping[str, Any]) -> None:
        """Also notes the digest of the report split's predictions that lie there now."""
        self._write(self.report_score_file, {**score, FILES: self._digests("report")})

    def report_score(self) -> Json | None:
        return self._read_or_none(self.report_score_file)

    def read(self, file: Path) -> Json:
        """One of the trial's JSON files; raises FileNotFoundError, or DamagedError."""
        return unsealed(file.read_bytes(), place=self._place(file))

    def write_predictions(self, rows: Iterable[Mapping[str, Any]], split: str = "selection") -> str:
        """Returns the sha256 of what it has written."""
        lines = prediction_lines(rows)
        write_bytes(self.predictions_file(split), lines, guard=self.guard)
        self._publish(self.predictions_file(split))
        return hashlib.sha256(lines).hexdigest()

    def damaged_files(self, names: Iterable[str] | None = None) -> list[Path]:
        """The files that are not as the trial's summary or report score says they were.

        `names` are relative to the trial's folder; None: its predictions on either split.
        """
        noted = {**self._noted(self.summary_file), **self._noted(self.report_score_file)}
        predictions = [self.predictions_file(split).name for split in ("selection", "report")]
        wanted = predictions if names is None else list(names)
        return [
            self.path / name
            for name in wanted
            if name in noted and digest(self.path / name) != noted[name]
            if not self._is_kept_elsewhere(name)
        ]

    def is_sound(self) -> bool:
        """Whether its spec, and its summary, score and predictions if there, are as written."""
        try:
            self.spec()
            for file in (self.summary_file, self.report_score_file):
                if file.exists():
                    self.read(file)
        except (OSError, DamagedError):
            return False
        return not self.damaged_files()

    def damaged_adapter(self) -> list[Path]:
        """As `damaged_files`, of the adapter or model; a model that was removed is not damaged."""
        folders = ("adapter/",) if self.model_was_removed else ("adapter/", "model/")
        noted = self._noted(self.summary_file)
        return self.damaged_files(name for name in noted if name.startswith(folders))

    def write_adapter(self, save: Callable[[Path], None]) -> None:
        """`save` writes the adapter into the folder that it is given; whole or not there.

        Durable once it returns; raises StorageError.
        """
        self._write_folder(self.adapter_folder, save)

    def write_model(self, save: Callable[[Path], None]) -> None:
        """As `write_adapter`, of a whole model."""
        self._write_folder(self.model_folder, save)
        self._remove(self.removed_model_file)

    @property
    def model_was_removed(self) -> bool:
        return self._read_or_none(self.removed_model_file) is not None

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

    @property
    def model_bytes(self) -> int:
        """What the model takes that full fine-tuning made, here or in the bucket; 0 without one."""
        files = [file for file in self.model_folder.rglob("*") if file.is_file()]
        elsewhere = self.mirror.elsewhere_bytes("model") if self.mirror is not None else 0
        return sum(file.stat().st_size for file in files) + elsewhere

    def append_log(self, line: str) -> None:
        self._append(self.log_file, line)
        self._sign(self.log_file)

    def publish_signs(self) -> None:
        """Publishes the end of the log and the progress, where a bucket is the truth."""
        if self.mirror is not None:
            self.mirror.flush()

    def append_told(self, step: int) -> None:
        """The trial tells of this step now; forgotten with its checkpoints."""
        self._append(self.told_file, str(step))
        self._sign(self.told_file)

    def told(self, *, after: int) -> frozenset[int]:
        """The steps later than `after` that the trial has told of: more than its last checkpoint
        knows if it broke off."""
        try:
            lines = self.told_file.read_bytes().split(b"\n")[:-1]  # without a torn last one
        except OSError:
            return frozenset()
        steps = (int(line) for line in lines if line.isdigit() and len(line) < 16)
        return frozenset(step for step in steps if step > after)

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
        beside = half_written(place)
        with storage_errors(place):
            try:
                save(beside)
                for written in (*beside.rglob("*"), beside):
                    sync(written)
                self.guard()
                shutil.rmtree(place, ignore_errors=True)
                beside.replace(place)
                sync(self.path)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
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

    def _is_kept_elsewhere(self, name: str) -> bool:
        """Not fetched, as it is large: whoever uses it fetches it and looks then."""
        if self.mirror is None or (self.path / name).exists():
            return False
        return self.mirror.is_kept_elsewhere(name)

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

    def _place(self, file: Path) -> str:
        return f"{self.trial_id}/{file.name}"

    def _write(self, file: Path, value: Mapping[str, Any]) -> None:
        self._write_here(file, value)
        self._publish(file)

    def _write_here(self, file: Path, value: Mapping[str, Any]) -> None:
        write_json(file, sealed(finite(value), place=self._place(file)), guard=self.guard)

    def _read_or_none(self, file: Path) -> Json | None:
        """None for a file that is not there or damaged; without the digests in it."""
        try:
            value = self.read(file)
        except (FileNotFoundError, IsADirectoryError, DamagedError):
            return None
        return {name: item for name, item in value.items() if name != FILES}

    def _digests(self, split: str) -> dict[str, str | None]:
        folders = (self.adapter_folder, self.model_folder) if split == "selection" else ()
        trained = [file for folder in folders for file in sorted(folder.glob("*"))]
        files = [self.predictions_file(split), *trained]
        return {str(file.relative_to(self.path)): digest(file) for file in files if file.is_file()}

    def _noted(self, file: Path) -> Json:
        try:
            noted = self.read(file).get(FILES)
        except (FileNotFoundError, IsADirectoryError, DamagedError):
            return {}
        return noted if isinstance(noted, dict) else {}


def prediction_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """What a file of predictions holds."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
