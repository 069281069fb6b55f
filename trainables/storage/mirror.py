"""Mirror: a folder's working copy on this machine's disk, and the objects that count. LIGHT.

All code reads and writes paths. What counts is published before the write that made it returns,
the file that makes it count last, as on a disk; what is discarded here is discarded there.

What a folder's files were when they were last the same here and there is noted in its
`.mirror.json`: size, time of writing and the object's tag. Only what differs from that is fetched.
A note that was lost, as two processes of one machine may lose them, costs a download.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.storage.atomic_files import temporary_path
from trainables.storage.bucket_store import open_store
from trainables.storage.errors import StorageError, storage_errors
from trainables.storage.object_store import Listed, ObjectStore, Tag, plain_key
from trainables.storage.working_copy import TRIALS, small, working_copy

SECONDS_BETWEEN_SIGNS = 10.0  # of life and of the log, at most one is published in so long
AT_ONCE = 16  # downloads
_NOTES = ".mirror.json"
_OWN = ("owner.json", "ray_train/")  # of a working copy: never published or fetched as a file
_GROWING = ("worker.log", "checkpoints/told")
_SIGNS = ("progress.json", *_GROWING)


def _unfenced() -> None:
    """The fence of a folder whose guard is enough."""


@dataclass
class Mirror:
    """One folder here, and its objects: those of `store` whose keys begin with `prefix`.

    `fence` raises if this process has lost the right to write there. It is asked before anything
    that counts is published, and once more before the last file of a folder.
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
        """Raises InputError for a bad URL."""
        return cls(working_copy(url), open_store(url))

    @property
    def url(self) -> str:
        return f"{self.store.place}/{self.prefix}".rstrip("/")

    def below(self, name: str) -> Mirror:
        """Of a folder in this one, as trials/TRIAL_ID."""
        return Mirror(self.folder / name, self.store, f"{self.prefix}{name}/", self.fence)

    def publish(self, *files: Path) -> None:
        """Each is there for every reader once this returns, in this order; raises StorageError."""
        self.fence()
        notes = {self._name(file): self._put(file) for file in files}
        self._flush(notes)
        self._note(notes)

    def publish_folder(self, folder: Path, *, last: str = "") -> None:
        """All files below, the one named `last` last; others that lie there go before that."""
        self.fence()
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        ending = [file for file in files if file.relative_to(folder).as_posix() == last]
        others = [file for file in files if file not in ending]
        notes: dict[str, Any] = dict.fromkeys(self._remove_others(folder, files))
        with ThreadPoolExecutor(max_workers=4) as pool:
            notes |= zip(map(self._name, others), pool.map(self._put, others), strict=True)
        if ending:
            self.fence()  # the others may have taken minutes
        notes |= {self._name(file): self._put(file) for file in ending}
        self._flush(notes)
        self._note(notes)

    def retract(self, *places: Path) -> None:
        """What lay at these places, files or folders, is gone for every reader."""
        self.fence()
        names = [self._name(place) for place in places]
        found = [item.key for name in names for item in self.store.list(f"{self.prefix}{name}/")]
        self.store.delete(found)
        self._note(dict.fromkeys(key.removeprefix(self.prefix) for key in found))

    def retract_files(self, *files: Path) -> None:
        """As `retract`, for what can only be a file: without a look at what is there."""
        self.fence()
        self.store.delete(f"{self.prefix}{self._name(file)}" for file in files)
        self._note(dict.fromkeys(map(self._name, files)))

    def sign(self, file: Path) -> None:
        """Signs of life and lines of a log: published now and then, and with what counts.

        That it can't be is no harm: the next one will tell.
        """
        self._waiting.add(self._name(file))
        if time.monotonic() - self._last_signs < SECONDS_BETWEEN_SIGNS:
            return
        with contextlib.suppress(StorageError):
            self.flush()

    def flush(self) -> None:
        """Publishes the signs that wait; raises StorageError."""
        self.fence()
        notes: dict[str, Any] = {}
        self._flush(notes)
        self._note(notes)

    def look(self, file: Path, *, every: float) -> Tag | None:
        """The version of a small file that lies there, looked at no more often than `every`
        seconds. A newer one than the copy here (its `written_ns` says so) is fetched."""
        if time.monotonic() - self._last_look < every:
            return self._seen
        self._last_look = time.monotonic()
        found = self.store.get(f"{self.prefix}{self._name(file)}")
        if found is None or found.tag == self._seen:
            return self._seen
        self._seen = found.tag
        if not file.exists() or file.stat().st_mtime_ns < found.written_ns:
            _place(file, found.content, written_ns=found.written_ns)
        return self._seen

    def pull(self, wanted: Callable[[str], bool] = small, *, prune: bool = False) -> None:
        """Fetches what differs of the files that are wanted, and removes what has been removed
        there; `prune`: whatever is only here goes. Raises StorageError.
        """
        notes = self._notes()
        listed = {item.key.removeprefix(self.prefix): item for item in self._listed()}
        self._take(listed, wanted, before=notes, prune=prune)

    def pull_run(self, *, prune: bool = False) -> None:
        """As `pull`, of a run: its own files and the small ones of all its trials."""
        own: dict[str, Listed] = {}
        trials: dict[str, dict[str, Listed]] = {}
        below = (self.below(f"{TRIALS}/{place.name}") for place in (self.folder / TRIALS).glob("*"))
        notes = {trial.folder.name: trial._notes() for trial in below}
        files = self._notes()["files"]
        own_notes = {"files": {name: noted for name, noted in files.items() if "/" not in name}}
        for item in self._listed():
            first, _, rest = item.key.partition("/")
            trial, _, name = rest.partition("/")
            if first == TRIALS and name:
                trials.setdefault(trial, {})[name] = item
            elif not rest:
                own[first] = item
        self._take(own, lambda name: True, before=own_notes, prune=False)
        if prune:
            self._prune_trials(trials)

        def take(trial: str) -> None:
            place, noted = self.below(f"{TRIALS}/{trial}"), notes.get(trial, _NOTHING_NOTED)
            place._take(trials[trial], small, before=noted, prune=prune)

        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            for _ in pool.map(take, trials):
                pass

    def is_kept_elsewhere(self, name: str) -> bool:
        """Whether the file lies there and was not fetched, when this was last looked at."""
        return name in self._notes()["elsewhere"]

    def elsewhere_bytes(self, folder: str) -> int:
        """What the files of a folder take that lie there and were not fetched."""
        found = self._notes()["elsewhere"].items()
        return sum(int(size) for name, size in found if name.startswith(f"{folder}/"))

    def _prune_trials(self, trials: Mapping[str, object]) -> None:
        for place in (self.folder / TRIALS).glob("*"):
            if place.name not in trials and place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)

    def _listed(self) -> Iterable[Listed]:
        return self.store.list(self.prefix)

    def _take(
        self,
        listed: Mapping[str, Listed],
        wanted: Callable[[str], bool],
        *,
        before: Mapping[str, Any],
        prune: bool,
    ) -> None:
        """`before`: the notes as they were when nothing had been listed yet."""
        notes = self._notes()
        ours = {name: item for name, item in listed.items() if not name.startswith(_OWN)}
        asked = {name: item for name, item in ours.items() if wanted(name)}
        due = [item for name, item in asked.items() if not self._is_same(name, item, notes)]
        gone = self._remove_what_has_gone(ours, before)
        if prune:
            self._prune(ours)
        with ThreadPoolExecutor(max_workers=AT_ONCE if len(due) > 1 else 1) as pool:
            fetched = dict(zip((item.key for item in due), pool.map(self._fetch, due), strict=True))
        elsewhere = {
            name: item.size for name, item in ours.items() if not (self.folder / name).is_file()
        }
        changed = {key.removeprefix(self.prefix): note for key, note in fetched.items()}
        changed |= dict.fromkeys(gone)
        if changed or elsewhere != notes["elsewhere"]:
            self._note(changed, elsewhere=elsewhere)

    def _is_same(self, name: str, item: Listed, notes: Mapping[str, Any]) -> bool:
        file = self.folder / name
        if name in _GROWING and file.is_file() and file.stat().st_size >= item.size:
            return True  # what was added here since it was last published
        noted = notes["files"].get(name)
        return noted is not None and bool(noted == _note_of(file, item.tag))

    def _fetch(self, item: Listed) -> list[Any] | None:
        """The note of what was fetched; None if it has just gone."""
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
        return _note_of(file, item.tag)

    def _remove_what_has_gone(
        self, listed: Mapping[str, Listed], before: Mapping[str, Any]
    ) -> list[str]:
        """Removes what was there before this listing, is there no more, and is as it was then: what
        another process of this machine has published since is none of it."""
        gone = [
            name
            for name, noted in before["files"].items()
            if name not in listed and _stat_of(self.folder / name) == noted[:2]
        ]
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        return gone

    def _prune(self, listed: Mapping[str, Listed]) -> None:
        """Removes what was never published, or was discarded elsewhere."""
        for file in [*self.folder.rglob("*")]:
            name = file.relative_to(self.folder).as_posix()
            is_ours = plain_key(name) and not name.startswith(_OWN) and name not in _SIGNS
            if is_ours and name not in listed and file.is_file() and not file.is_symlink():
                file.unlink(missing_ok=True)

    def _put(self, file: Path) -> list[Any] | None:
        """The note of what was published."""
        with storage_errors(file):
            found = file.stat()
        key = f"{self.prefix}{self._name(file)}"
        tag = self.store.put(key, file, written_ns=found.st_mtime_ns)
        return [found.st_size, found.st_mtime_ns, tag.e_tag, tag.version]

    def _flush(self, notes: dict[str, Any]) -> None:
        waiting, self._waiting = sorted(self._waiting - notes.keys()), set()
        self._last_signs = time.monotonic()
        for name in waiting:
            if (self.folder / name).is_file():
                notes[name] = self._put(self.folder / name)

    def _remove_others(self, folder: Path, files: Iterable[Path]) -> list[str]:
        """The names of what lay there and is not among `files`."""
        names = {f"{self.prefix}{self._name(file)}" for file in files}
        found = self.store.list(f"{self.prefix}{self._name(folder)}/")
        others = [item.key for item in found if item.key not in names]
        self.store.delete(others)
        return [key.removeprefix(self.prefix) for key in others]

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _notes(self) -> dict[str, Any]:
        try:
            read = json.loads((self.folder / _NOTES).read_bytes())
            return {"files": dict(read["files"]), "elsewhere": dict(read["elsewhere"])}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {name: dict(value) for name, value in _NOTHING_NOTED.items()}

    def _note(
        self, changes: Mapping[str, Any], *, elsewhere: Mapping[str, int] | None = None
    ) -> None:
        """Notes what was put or fetched, and forgets what is None."""
        if not self.folder.is_dir() or (not changes and elsewhere is None):
            return
        notes = self._notes()
        files = {**notes["files"], **changes}
        there = notes["elsewhere"] if elsewhere is None else elsewhere
        text = json.dumps(
            {
                "files": {name: note for name, note in files.items() if note is not None},
                "elsewhere": {name: size for name, size in there.items() if name not in changes},
            }
        )
        _place(self.folder / _NOTES, text.encode())


_NOTHING_NOTED: Mapping[str, Any] = {"files": {}, "elsewhere": {}}


def _stat_of(file: Path) -> list[int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _note_of(file: Path, tag: Tag) -> list[Any] | None:
    found = _stat_of(file)
    return None if found is None else [*found, tag.e_tag, tag.version]


def _place(file: Path, content: bytes, *, written_ns: int = 0) -> None:
    temporary = temporary_path(file)
    with storage_errors(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            if written_ns:
                os.utime(temporary, ns=(written_ns, written_ns))
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
