"""Mirror: keeps the working copy of a folder on this disk and its objects in a bucket in step.

All other code reads and writes paths. Every write publishes its files before it returns, the file
that makes the others valid last, as on a disk; a discarded file is also deleted in the bucket.

The folder's `.mirror.json` notes size, time of writing and object tag of each file when disk and
bucket last agreed; only files that differ from their note are fetched. A lost note, as two
processes of one machine may overwrite each other's, costs a download.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from trainables.storage.atomic_files import temporary_path
from trainables.storage.bucket_store import open_store
from trainables.storage.errors import StorageError, storage_errors
from trainables.storage.mirror_notes import (
    Note,
    Notes,
    note_of,
    read_notes,
    stat_of,
    update_notes,
    write_file,
)
from trainables.storage.object_store import Listed, ObjectStore, Tag, plain_key
from trainables.storage.working_copy import TRIALS, small, working_copy

SECONDS_BETWEEN_SIGNS = 10.0  # between two uploads of signs of life and of the log
DOWNLOADS_AT_ONCE = 16
_OWN = ("owner.json", "ray_train/")  # of the working copy: never published nor fetched
_GROWING = ("worker.log", "checkpoints/told")  # lines are only appended
_SIGNS = ("progress.json", *_GROWING)


def _unfenced() -> None:
    """The fence of a folder for which the guard is enough."""


@dataclass
class Mirror:
    """A folder on this disk, and its objects: those of `store` whose keys begin with `prefix`.

    `fence` raises if this process has lost the right to write to the bucket. It is called before
    each publication, and once more before the last file of a folder.
    """

    folder: Path
    store: ObjectStore
    prefix: str = ""
    fence: Callable[[], None] = field(default=_unfenced)
    _waiting: set[str] = field(default_factory=set)
    _last_signs: float = float("-inf")
    _last_look: float = float("-inf")
    _seen: Tag | None = None

    @classmethod
    def of_run(cls, url: str) -> Mirror:
        """The mirror of a run; raises InputError for a bad URL."""
        return cls(working_copy(url), open_store(url))

    @property
    def url(self) -> str:
        return f"{self.store.place}/{self.prefix}".rstrip("/")

    def below(self, name: str) -> Mirror:
        """The mirror of a folder in this one, as trials/TRIAL_ID."""
        return Mirror(self.folder / name, self.store, f"{self.prefix}{name}/", self.fence)

    def publish(self, *files: Path) -> None:
        """Uploads files in this order; every reader sees them once this returns.

        Raises StorageError.
        """
        self.fence()
        notes: dict[str, Note | None] = {self._name(file): self._put(file) for file in files}
        self._flush(notes)
        update_notes(self.folder, notes)

    def publish_folder(self, folder: Path, *, last: str = "") -> None:
        """Uploads all files of a folder, the one named `last` last, and deletes other objects."""
        self.fence()
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        ending = [file for file in files if file.relative_to(folder).as_posix() == last]
        others = [file for file in files if file not in ending]
        notes: dict[str, Note | None] = dict.fromkeys(self._remove_others(folder, files))
        with ThreadPoolExecutor(max_workers=4) as pool:
            notes |= zip(map(self._name, others), pool.map(self._put, others), strict=True)
        if ending:
            self.fence()  # the others may have taken minutes
        notes |= {self._name(file): self._put(file) for file in ending}
        self._flush(notes)
        update_notes(self.folder, notes)

    def retract(self, *places: Path) -> None:
        """Deletes the objects of these files or folders."""
        self.fence()
        names = [self._name(place) for place in places]
        found = [item.key for name in names for item in self.store.list(f"{self.prefix}{name}/")]
        self.store.delete(found)
        update_notes(self.folder, dict.fromkeys(key.removeprefix(self.prefix) for key in found))

    def retract_files(self, *files: Path) -> None:
        """As `retract`, for files only: without a listing."""
        self.fence()
        self.store.delete(f"{self.prefix}{self._name(file)}" for file in files)
        update_notes(self.folder, dict.fromkeys(map(self._name, files)))

    def sign(self, file: Path) -> None:
        """Uploads a sign of life or a log at intervals, and with the next publication.

        A failed upload is ignored; the next call retries it.
        """
        self._waiting.add(self._name(file))
        if time.monotonic() - self._last_signs < SECONDS_BETWEEN_SIGNS:
            return
        with contextlib.suppress(StorageError):
            self.flush()

    def flush(self) -> None:
        """Uploads the waiting signs of life and logs; raises StorageError."""
        self.fence()
        notes: dict[str, Note | None] = {}
        self._flush(notes)
        update_notes(self.folder, notes)

    def look(self, file: Path, *, every: float) -> Tag | None:
        """The version of a small file in the bucket, which is asked at most every `every` seconds.

        A version that was written later than the copy on this disk is fetched.
        """
        if time.monotonic() - self._last_look < every:
            return self._seen
        self._last_look = time.monotonic()
        found = self.store.get(f"{self.prefix}{self._name(file)}")
        if found is None or found.tag == self._seen:
            return self._seen
        self._seen = found.tag
        if not file.exists() or file.stat().st_mtime_ns < found.written_ns:
            write_file(file, found.content, written_ns=found.written_ns)
        return self._seen

    def pull(self, wanted: Callable[[str], bool] = small, *, prune: bool = False) -> None:
        """Fetches the wanted files that differ, and deletes files whose objects were deleted.

        `prune` deletes all files that the bucket lacks. Raises StorageError.
        """
        notes = read_notes(self.folder)
        listed = {item.key.removeprefix(self.prefix): item for item in self._listed()}
        self._update_copy(listed, wanted, before=notes, prune=prune)

    def pull_run(self, *, prune: bool = False) -> None:
        """As `pull`, for a run: its own files and the small ones of all its trials."""
        own: dict[str, Listed] = {}
        trials: dict[str, dict[str, Listed]] = {}
        below = (self.below(f"{TRIALS}/{place.name}") for place in (self.folder / TRIALS).glob("*"))
        notes = {trial.folder.name: read_notes(trial.folder) for trial in below}
        files = read_notes(self.folder).files
        own_notes = Notes({name: noted for name, noted in files.items() if "/" not in name})
        for item in self._listed():
            first, _, rest = item.key.partition("/")
            trial, _, name = rest.partition("/")
            if first == TRIALS and name:
                trials.setdefault(trial, {})[name] = item
            elif not rest:
                own[first] = item
        self._update_copy(own, lambda name: True, before=own_notes, prune=False)
        if prune:
            self._prune_trials(trials)

        def update(trial: str) -> None:
            place, noted = self.below(f"{TRIALS}/{trial}"), notes.get(trial, Notes())
            place._update_copy(trials[trial], small, before=noted, prune=prune)

        with ThreadPoolExecutor(max_workers=DOWNLOADS_AT_ONCE) as pool:
            for _ in pool.map(update, trials):
                pass

    def is_kept_elsewhere(self, name: str) -> bool:
        """Whether the bucket had the file at the last listing and it was not fetched."""
        return name in read_notes(self.folder).elsewhere

    def elsewhere_bytes(self, folder: str) -> int:
        """The size of a folder's files that are in the bucket and were not fetched."""
        found = read_notes(self.folder).elsewhere.items()
        return sum(int(size) for name, size in found if name.startswith(f"{folder}/"))

    def _prune_trials(self, trials: Mapping[str, object]) -> None:
        for place in (self.folder / TRIALS).glob("*"):
            if place.name not in trials and place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)

    def _listed(self) -> Iterable[Listed]:
        return self.store.list(self.prefix)

    def _update_copy(
        self,
        listed: Mapping[str, Listed],
        wanted: Callable[[str], bool],
        *,
        before: Notes,
        prune: bool,
    ) -> None:
        """`before` has the notes as they were before the listing."""
        notes = read_notes(self.folder)
        ours = {name: item for name, item in listed.items() if not name.startswith(_OWN)}
        asked = {name: item for name, item in ours.items() if wanted(name)}
        due = [item for name, item in asked.items() if not self._is_same(name, item, notes)]
        gone = self._remove_deleted(ours, before)
        if prune:
            self._prune(ours)
        with ThreadPoolExecutor(max_workers=DOWNLOADS_AT_ONCE if len(due) > 1 else 1) as pool:
            fetched = dict(zip((item.key for item in due), pool.map(self._fetch, due), strict=True))
        elsewhere = {
            name: item.size for name, item in ours.items() if not (self.folder / name).is_file()
        }
        changed = {key.removeprefix(self.prefix): note for key, note in fetched.items()}
        changed |= dict.fromkeys(gone)
        if changed or elsewhere != notes.elsewhere:
            update_notes(self.folder, changed, elsewhere=elsewhere)

    def _is_same(self, name: str, item: Listed, notes: Notes) -> bool:
        file = self.folder / name
        if name in _GROWING and file.is_file() and file.stat().st_size >= item.size:
            return True  # lines were appended here since it was published
        noted = notes.files.get(name)
        return noted is not None and bool(noted == note_of(file, item.tag))

    def _fetch(self, item: Listed) -> Note | None:
        """Fetches a file and returns its note, or None if its object has just been deleted."""
        file = self.folder / item.key.removeprefix(self.prefix)
        temporary = temporary_path(file)
        with storage_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                if not self.store.download(item.key, temporary):
                    return None
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)
        return note_of(file, item.tag)

    def _remove_deleted(self, listed: Mapping[str, Listed], before: Notes) -> list[str]:
        """Deletes files that are unchanged since they were noted before the listing, and that the
        listing lacks; a file that another process here has published since is none of them."""
        gone = [
            name
            for name, noted in before.files.items()
            if name not in listed and stat_of(self.folder / name) == noted[:2]
        ]
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        return gone

    def _prune(self, listed: Mapping[str, Listed]) -> None:
        """Deletes files that were never published, or were discarded elsewhere."""
        for file in [*self.folder.rglob("*")]:
            name = file.relative_to(self.folder).as_posix()
            is_ours = plain_key(name) and not name.startswith(_OWN) and name not in _SIGNS
            if is_ours and name not in listed and file.is_file() and not file.is_symlink():
                file.unlink(missing_ok=True)

    def _put(self, file: Path) -> Note:
        """Uploads a file and returns its note."""
        with storage_errors(file):
            found = file.stat()
        key = f"{self.prefix}{self._name(file)}"
        tag = self.store.put(key, file, written_ns=found.st_mtime_ns)
        return [found.st_size, found.st_mtime_ns, tag.e_tag, tag.version]

    def _flush(self, notes: dict[str, Note | None]) -> None:
        """Uploads the waiting files that are not among `notes`, and adds their notes."""
        waiting, self._waiting = sorted(self._waiting - notes.keys()), set()
        self._last_signs = time.monotonic()
        for name in waiting:
            if (self.folder / name).is_file():
                notes[name] = self._put(self.folder / name)

    def _remove_others(self, folder: Path, files: Iterable[Path]) -> list[str]:
        """Deletes the folder's objects that are not among `files`; returns their names."""
        names = {f"{self.prefix}{self._name(file)}" for file in files}
        found = self.store.list(f"{self.prefix}{self._name(folder)}/")
        others = [item.key for item in found if item.key not in names]
        self.store.delete(others)
        return [key.removeprefix(self.prefix) for key in others]

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()
