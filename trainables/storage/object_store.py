"""Objects under keys in one place: a bucket of S3 or Google Cloud, or a folder. LIGHT.

    open_store("s3://bucket/sweeps/NAME").put("trials/3f9c2a/summary.json", b"...")

One protocol for all of them, one suite of tests over all of them (tests/contracts). An object is
whole or not there, and a reader sees the old one or the new one. Of several that create an object
if it is absent, or replace one version of it, one wins: S3 and Google Cloud decide that themselves
(If-None-Match, If-Match; generations).

Credentials are taken from where AWS's and Google's own tools look for them, by obstore; none are
kept, passed on or written here, nor is what a server answers about them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainables.errors import InputError

SCHEMES = ("s3", "gs")
_PART = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.=-]*")  # between two slashes: no "..", nothing hidden
_URL = re.compile(r"([0-9A-Za-z]+)://(.*)", re.DOTALL)


@dataclass(frozen=True)
class Timeouts:
    """For how long a service may be away: requests are repeated for so long, and one of them may
    take so long."""

    retry_seconds: float
    request_seconds: float


LONG_TIMEOUTS = Timeouts(120.0, 120.0)


@dataclass(frozen=True)
class Tag:
    """One version of an object: another content has another tag."""

    e_tag: str | None
    version: str | None = None


@dataclass(frozen=True)
class Listed:
    """An object as a listing names it."""

    key: str
    size: int
    tag: Tag


@dataclass(frozen=True)
class Stored:
    """An object as it was read; `written_ns`: when its file was written, 0 where nobody said."""

    content: bytes
    tag: Tag
    written_ns: int = 0


class ObjectStore(Protocol):
    """Objects of one place. Keys are plain (`plain_key`); every method may raise StorageError."""

    @property
    def place(self) -> str:
        """The URL or path that it was opened with."""

    def put(self, key: str, content: bytes | Path, *, written_ns: int = 0) -> Tag:
        """Creates or replaces an object; whole, and there for every reader once this returns."""

    def put_if_absent(self, key: str, content: bytes) -> Tag | None:
        """None, and nothing changes, if there is one. `content` must be the writer's own (hold a
        nonce): by it a writer whose answer was lost knows that it was the one."""

    def replace(self, key: str, content: bytes, *, tag: Tag) -> Tag | None:
        """None, and nothing changes, if it is another version than `tag` or gone. `content`: as
        for `put_if_absent`."""

    def get(self, key: str) -> Stored | None:
        """None if there is none."""

    def download(self, key: str, file: Path) -> bool:
        """Writes an object into a new file, with the time it was written; False: there is none."""

    def with_timeouts(self, patience: Timeouts) -> ObjectStore:
        """The same store, asked as `patience` says; a disk is as patient as its system."""

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All objects whose key begins with `prefix`, which is empty or ends with a slash.

        What has a key that is not plain is none of ours, and left out.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Those that are not there are gone already."""


def is_url(place: str) -> bool:
    """Whether a place is given by its scheme, as s3://bucket/sweeps; else it is a path."""
    return _URL.fullmatch(place) is not None


def checked_url(place: str) -> str:
    """The URL without a slash at its end; raises InputError if it names no place for objects."""
    match = _URL.fullmatch(place)
    scheme, rest = match.groups() if match else ("", place)
    if scheme not in SCHEMES:
        allowed = " or ".join(f"{name}://BUCKET/FOLDER" for name in SCHEMES)
        raise InputError(f"{place}: storage is a folder's path, {allowed}; got {scheme}://.")
    bucket, *parts = rest.rstrip("/").split("/")
    if not all(_PART.fullmatch(part) for part in (bucket, *parts)):
        raise InputError(
            f"{place}: needs {scheme}://BUCKET/FOLDER, of letters, digits, and - _ . = only."
        )
    return "/".join([f"{scheme}:/", bucket, *parts])


def plain_key(key: str) -> bool:
    """Whether a key is names between slashes: none hidden, none that leads upwards."""
    return all(_PART.fullmatch(part) for part in key.split("/"))
