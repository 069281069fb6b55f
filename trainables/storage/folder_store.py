"""FolderStore: an object store in a plain folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.storage.atomic_files import temporary_path
from trainables.storage.errors import StorageError, storage_errors
from trainables.storage.object_store import (
    Listed,
    ObjectStore,
    Stored,
    Tag,
    Timeouts,
    _set_written,
    plain_key,
)


class FolderStore:
    """An ObjectStore in a folder that all its users share, on a disk or by NFS."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def with_timeouts(self, patience: Timeouts) -> ObjectStore:
        return self

    @property
    def place(self) -> str:
        return str(self._folder)

    def put(self, key: str, content: bytes | Path, *, written_ns: int = 0) -> Tag:
        file = self._file(key)
        with storage_errors(file), self._beside(file, content) as temporary:
            _set_written(temporary, written_ns)
            temporary.replace(file)
            return _tag_of(file)

    def put_if_absent(self, key: str, content: bytes) -> Tag | None:
        file = self._file(key)
        with storage_errors(file), self._beside(file, content) as temporary:
            try:
                os.link(temporary, file)
            except FileExistsError:
                return None
            return _tag_of(file)

    def replace(self, key: str, content: bytes, *, tag: Tag) -> Tag | None:
        """Its users keep each other out by a lock beside it (flock), which NFS has from 4 on."""
        file = self._file(key)
        with storage_errors(file), _locked(file):
            if not file.is_file() or _tag_of(file) != tag:
                return None
            with self._beside(file, content) as temporary:
                temporary.replace(file)
                return _tag_of(file)

    def get(self, key: str) -> Stored | None:
        file = self._file(key)
        with storage_errors(file):
            try:
                with file.open("rb") as stream:
                    found = os.fstat(stream.fileno())
                    return Stored(stream.read(), _tag_from(found), found.st_mtime_ns)
            except (FileNotFoundError, IsADirectoryError):
                return None

    def download(self, key: str, file: Path) -> bool:
        found = self.get(key)
        if found is None:
            return False
        with storage_errors(file), file.open("xb") as part:
            part.write(found.content)
        _set_written(file, found.written_ns)
        return True

    def list(self, prefix: str = "") -> Iterator[Listed]:
        top = self._file(prefix.rstrip("/")) if prefix else self._folder
        with storage_errors(top):
            for place, _, names in os.walk(top, followlinks=False):
                for name in names:
                    file = Path(place, name)
                    key = file.relative_to(self._folder).as_posix()
                    if plain_key(key) and not file.is_symlink():
                        with contextlib.suppress(FileNotFoundError):
                            yield Listed(key, file.stat().st_size, _tag_of(file))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with storage_errors(self._file(key)):
                self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        """Raises StorageError for a key that would lead elsewhere."""
        if not plain_key(key):
            raise StorageError(f"{self.place}/{key}: no plain key; nothing has such a one.")
        file = self._folder / key
        if any(parent.is_symlink() for parent in (file, *file.parents[: key.count("/")])):
            raise StorageError(f"{file}: is behind a symbolic link; put the file itself there.")
        return file

    @contextmanager
    def _beside(self, file: Path, content: bytes | Path) -> Iterator[Path]:
        """A file with the content, on the disk already, that is gone afterwards."""
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(file)
        try:
            with temporary.open("wb") as part:
                part.write(content if isinstance(content, bytes) else content.read_bytes())
                part.flush()
                os.fsync(part.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _tag_of(file: Path) -> Tag:
    return _tag_from(file.stat())


def _tag_from(found: os.stat_result) -> Tag:
    return Tag(f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}")


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
