"""StorageError: a disk or bucket that is full, read-only or gone."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOT_FOR_WANT_OF_ROOM = (errno.EACCES, errno.EPERM, errno.EROFS)


class StorageError(OSError):
    """A read or write failed; the message says where, why and how much room is left there."""


@contextmanager
def storage_errors(place: Path, *others: type[Exception]) -> Iterator[None]:
    """Turns errors of writing to `place` into StorageError.

    `others` are exceptions beside OSError that a library raises if it can't write.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *others)
    try:
        yield
    except StorageError:
        raise
    except kinds as error:
        raise StorageError(_message(place, error)) from error


def storage_error_in(error: BaseException | None) -> StorageError | None:
    """The first StorageError in the chain of an error and its causes, or None."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, StorageError):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def _message(place: Path, error: Exception) -> str:
    reason = str(getattr(error, "strerror", None) or error).strip()
    if getattr(error, "errno", None) in _NOT_FOR_WANT_OF_ROOM:
        return f"{place}: can't be written ({reason}). Make it writable, and run the command again."
    return f"{place}: can't be written ({reason}{_free(place)}). Make room, then resume."


def _free(place: Path) -> str:
    there = next((parent for parent in (place, *place.parents) if parent.exists()), None)
    if there is None:
        return ""
    return f"; {shutil.disk_usage(there).free / 2**20:.0f} MiB are free there"
