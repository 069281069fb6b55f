"""Storage errors name the place, the reason and the free space."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from trainables.storage.errors import StorageError, storage_error_in, storage_errors


def test_the_message_names_place_reason_and_room(tmp_path: Path) -> None:
    place = tmp_path / "not there yet" / "summary.json"
    with pytest.raises(StorageError) as raised, storage_errors(place):
        raise OSError(errno.ENOSPC, "No space left on device")
    reported_steps = str(raised.value)
    assert reported_steps.startswith(f"{place}: can't be written (No space left on device; ")
    assert "MiB are free there). Make room, then resume." in reported_steps


def test_a_librarys_own_error_counts_where_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="disk quota"), storage_errors(tmp_path, KeyError):
        raise KeyError("disk quota exceeded")
    with pytest.raises(KeyError), storage_errors(tmp_path):
        raise KeyError("a bug")


def test_the_innermost_place_is_named(tmp_path: Path) -> None:
    outer, inner = storage_errors(tmp_path / "outer"), storage_errors(tmp_path / "inner")
    with pytest.raises(StorageError, match="inner"), outer, inner:
        raise OSError(errno.EROFS, "Read-only file system")


def test_it_is_found_behind_what_it_led_to() -> None:
    first = StorageError("full")
    try:
        try:
            raise first
        except StorageError as error:
            raise RuntimeError("the trial's step failed") from error
    except RuntimeError as error:
        assert storage_error_in(error) is first
    assert storage_error_in(RuntimeError("another")) is None
