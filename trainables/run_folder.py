"""Where everything of a run lies on disk, and the only place that writes it.

    STORAGE/mlflow.db
    STORAGE/NAME/{sweep.yaml, sweep.json, results.csv, report.md, pareto.png, study.db, driver.lock}
    STORAGE/NAME/trials/TRIAL_ID/{spec.json, prediction.json, summary.json, predictions.jsonl, ...}

A file is written beside its place and moved there, so a reader sees the old one or the new one.
`summary.json` is a trial's last file: where it can be read, the trial is done. Every JSON file is
sealed (`trainables.sealed`) and a summary names the digests of what it sums up, so that what was
torn, altered or swapped is seen as damaged and is as good as not there.

A folder's `guard` is asked right before a file is moved to its place. It raises if the writer has
lost the right to write there: a host to a later one (`trainables.fence`), a driver to the one that
has taken the sweep over (`orchestrator.lease`).

A folder of a bucket (s3://, gs://) has a `mirror`: its path is this machine's working copy, and
what is written there is published before the write returns (`trainables.mirrored`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import InputError
from trainables.object_store import is_url
from trainables.sealed import DamagedError, sealed, unsealed
from trainables.spec.trial_spec import TrialSpec
from trainables.storage import half_written, storage_errors

if TYPE_CHECKING:
    from trainables.mirrored import Mirror

Json = dict[str, Any]
Guard = Callable[[], None]
FILES = "files"  # in a summary or a score: the digests of the files it was made with
_PLAIN_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*")


def unguarded() -> None:
    """The guard of a folder that anybody may write."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one sweep: `storage/name`."""

    path: Path
    guard: Guard = field(default=unguarded, compare=False, repr=False)
    mirror: Mirror | None = field(default=None, compare=False, repr=False)

    @classmethod
    def at(cls, place: str | Path) -> RunFolder:
        """The folder at a path, or the working copy of the one at a URL, as it lies here now (see
        `pull`). Raises InputError for a URL that names no place for runs."""
        if not is_url(str(place)):
            return cls(Path(place))
        from trainables.mirrored import Mirror

        mirror = Mirror.of_run(str(place))
        return cls(mirror.folder, mirror=mirror)

    @property
    def place(self) -> str:
        """What `at` is given for this folder: its path or URL."""
        return str(self.path) if self.mirror is None else self.mirror.url

    @property
    def storage(self) -> str:
        """The folder or URL below which this run and others lie."""
        return self.place.rpartition("/")[0]

    def pull(self, *, prune: bool = False) -> None:
        """Makes the working copy what its bucket holds, but for checkpoints and what trials have
        trained. `prune`: what was never published goes. Raises StorageError."""
        if self.mirror is not None:
            self.mirror.pull_run(prune=prune)

    def discard(self) -> None:
        """Removes the whole run, from its bucket too."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.mirror is not None:
            self.mirror.store.delete(item.key for item in self.mirror.store.list())

    @property
    def sweep_file(self) -> Path:
        return self.path / "sweep.yaml"

    @property
    def results_file(self) -> Path:
        return self.path / "results.csv"

    @property
    def report_file(self) -> Path:
        return self.path / "report.md"

    @property
    def pareto_file(self) -> Path:
        return self.path / "pareto.png"

    @property
    def flops_file(self) -> Path:
        return self.path / "flops.png"

    @property
    def study_file(self) -> Path:
        return self.path / "study.db"

    @property
    def predictions_folder(self) -> Path:
        """What simulations found out, by shape: a cache that may be removed."""
        return self.path / "predictions"

    @property
    def lock_file(self) -> Path:
        return self.path / "driver.lock"

    @property
    def state_file(self) -> Path:
        return self.path / "sweep.json"

    def write_state(self, state: Mapping[str, Any]) -> None:
        """`sweep_id`, `resume_command`, and once it has ended `trials_done` and `exhausted`."""
        content = sealed(_finite(state), place=self.state_file.name)
        write_json(self.state_file, content, guard=self.guard)
        self._publish(self.state_file)

    def state(self) -> Json | None:
        """None where it is not there or damaged."""
        try:
            return self.read_state()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, DamagedError):
            return None

    def read_state(self) -> Json:
        """Raises FileNotFoundError, or DamagedError."""
        return unsealed(self.state_file.read_bytes(), place=self.state_file.name)

    @property
    def tracking_database(self) -> Path:
        return self.path.parent / "mlflow.db"

    @property
    def flips_file(self) -> Path:
        return self.path / "flips.csv"

    @property
    def trials_folder(self) -> Path:
        return self.path / "trials"

    def trial(self, trial_id: str) -> TrialFolder:
        """Raises InputError for an id that is no plain name: it would lead elsewhere."""
        if not _PLAIN_NAME.fullmatch(trial_id):
            raise InputError(
                f"trial {trial_id!r}: no trial has such an id; needs letters, digits, - and _."
            )
        return self._trial(self.trials_folder / trial_id)

    def trials(self) -> Iterator[TrialFolder]:
        """Every trial that has a spec, in order of the time its spec was written.

        What a symbolic link leads to is none (see `links`).
        """
        specs = [] if self.trials_folder.is_symlink() else self.trials_folder.glob("*/spec.json")
        plain = [spec for spec in specs if not spec.parent.is_symlink() and not spec.is_symlink()]
        for spec in sorted(plain, key=lambda file: (file.stat().st_mtime_ns, file.parent.name)):
            if _PLAIN_NAME.fullmatch(spec.parent.name):
                yield self._trial(spec.parent)

    def links(self) -> list[Path]:
        """The symbolic links among the trials' files: through one a trial would write elsewhere."""
        if self.trials_folder.is_symlink():
            return [self.trials_folder]
        below = os.walk(self.trials_folder, followlinks=False)
        entries = (
            Path(place, name) for place, folders, files in below for name in (*folders, *files)
        )
        return sorted(entry for entry in entries if entry.is_symlink())

    def nameless(self) -> list[Path]:
        """Folders of trials whose spec is gone, and was not set aside."""
        folders = (item for item in self.trials_folder.glob("*") if item.is_dir())
        gone = (item for item in folders if not [*item.glob("spec.json*")] and any(item.iterdir()))
        return sorted(gone)

    def write_text(self, file: Path, text: str) -> None:
        self.write_bytes(file, text.encode())

    def write_bytes(self, file: Path, content: bytes) -> None:
        write_bytes(file, content, guard=self.guard)
        self._publish(file)

    def _publish(self, file: Path) -> None:
        if self.mirror is not None:
            self.mirror.publish(file)

    def _trial(self, path: Path) -> TrialFolder:
        mirror = None if self.mirror is None else self.mirror.below(f"trials/{path.name}")
        return TrialFolder(path, self.guard, mirror)


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial: `storage/name/trials/TRIAL_ID`."""

    path: Path
    guard: Guard = field(default=unguarded, compare=False, repr=False)
    mirror: Mirror | None = field(default=None, compare=False, repr=False)

    @classmethod
    def at(cls, place: str) -> TrialFolder:
        """The folder that `place` of another process's names, on whichever machine this is."""
        if not is_url(place):
            return cls(Path(place))
        run, _, trial_id = place.rpartition("/trials/")
        return RunFolder.at(run).trial(trial_id)

    @property
    def place(self) -> str:
        """What `at` is given for this folder: its path or URL."""
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
            from trainables.mirrored import not_trained

            self.mirror.pull(not_trained, prune=True)

    def pull_trained(self, *, model: bool = True) -> None:
        """Fetches the adapter, and the model if there is one and it is asked for, which then lie in
        their folders. Raises StorageError."""
        if self.mirror is not None:
            folders = ("adapter/", "model/") if model else ("adapter/",)
            self.mirror.pull(lambda name: name.startswith(folders))

    @property
    def trial_id(self) -> str:
        return self.path.name

    @property
    def spec_file(self) -> Path:
        return self.path / "spec.json"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def prediction_file(self) -> Path:
        return self.path / "prediction.json"

    @property
    def progress_file(self) -> Path:
        return self.path / "progress.json"

    @property
    def owner_file(self) -> Path:
        """Who trains the trial, see `trainables.fence`."""
        return self.path / "owner.json"

    @property
    def log_file(self) -> Path:
        return self.path / "worker.log"

    @property
    def adapter_folder(self) -> Path:
        return self.path / "adapter"

    @property
    def model_folder(self) -> Path:
        """What full fine-tuning made: a model of transformers, with its tokenizer."""
        return self.path / "model"

    @property
    def removed_model_file(self) -> Path:
        """Says that the model was removed on purpose (see `discard_model`)."""
        return self.path / "model_removed.json"

    @property
    def checkpoints_folder(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report_score_file(self) -> Path:
        return self.path / "report.json"

    def predictions_file(self, split: str = "selection") -> Path:
        name = "predictions.jsonl" if split == "selection" else f"{split}_predictions.jsonl"
        return self.path / name

    @property
    def done(self) -> bool:
        return self.summary() is not None

    def write_spec(self, spec: TrialSpec, suggestion: Mapping[str, Any]) -> None:
        """The spec, with the sampler's parameters that led to it (see `orchestrator.search`)."""
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
        self._append(self._told_file, str(step))
        self._sign(self._told_file)

    def told(self, *, after: int) -> frozenset[int]:
        """The steps later than `after` that the trial has told of: more than its last checkpoint
        knows if it broke off."""
        try:
            lines = self._told_file.read_bytes().split(b"\n")[:-1]  # without a torn last one
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

    @property
    def _told_file(self) -> Path:
        return self.checkpoints_folder / "told"

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
        write_json(file, sealed(_finite(value), place=self._place(file)), guard=self.guard)

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


def digest(file: Path) -> str | None:
    """The sha256 of a file's content; None if there is no such file."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return None


def write_json(file: Path, value: Mapping[str, Any], *, guard: Guard = unguarded) -> None:
    """Writes beside and moves into place; NaN and infinity are written as null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n"
    write_bytes(file, text.encode(), guard=guard)


def write_bytes(file: Path, content: bytes, *, guard: Guard = unguarded) -> None:
    """Writes beside and moves into place, durable once it returns; raises StorageError."""
    beside = half_written(file)
    with storage_errors(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as part:
                part.write(content)
                part.flush()
                os.fsync(part.fileno())
            guard()
            beside.replace(file)
            sync(file.parent)
        finally:
            _remove(beside)


def sync(path: Path) -> None:
    """What a file or a folder holds is on the disk once this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_half_written(folder: Path) -> None:
    """Removes what killed processes have left at any depth; one that still lives and is about to
    move its own into place can't any more.
    """
    for part in [*folder.rglob(".*.part")]:
        gone = part.with_name(f".{uuid.uuid4().hex}.gone")
        try:
            part.replace(gone)  # at once: no half of a folder can be moved into place
        except FileNotFoundError:
            continue  # it is in its place now
        _discard(gone)
    for gone in [*folder.rglob(".*.gone")]:  # of who was killed right here
        _discard(gone)


def _discard(gone: Path) -> None:
    """A living process may still write into what was its folder, or remove it too."""
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink(missing_ok=True)


def _remove(beside: Path) -> None:
    """What was half written takes room that the disk may lack."""
    with contextlib.suppress(OSError):
        beside.unlink()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
