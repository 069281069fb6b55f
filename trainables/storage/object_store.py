"""ObjectStore: the protocol of buckets, as of S3 and Google Cloud, and the URLs of their places.

    open_store("s3://bucket/sweeps/NAME").put("trials/3f9c2a/summary.json", b"...")

One contract test covers all stores (tests/contracts). An object is complete or absent, and a reader
sees the old or the new version. Of several writers that create an absent object, or replace one
version, one succeeds: S3 and Google Cloud guarantee that (If-None-Match, If-Match; generations).

obstore takes credentials from where AWS's and Google's own tools look for them. None are kept,
passed on or written here, nor a server's answers about them.
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
    """How long requests are repeated if a service does not answer, and how long one may take."""

    retry_seconds: float
    request_seconds: float


LONG_TIMEOUTS = Timeouts(120.0, 120.0)


@dataclass(frozen=True)
class Tag:
    """The version of an object; other content has another tag."""

    e_tag: str | None
    version: str | None = None


@dataclass(frozen=True)
class Listed:
    """An object in a listing."""

    key: str
    size: int
    tag: Tag


@dataclass(frozen=True)
class Stored:
    """The content of an object; `written_ns` is the time at which its file was written, or 0."""

    content: bytes
    tag: Tag
    written_ns: int = 0


class ObjectStore(Protocol):
    """The objects of one place. Keys are plain (`plain_key`); methods may raise StorageError."""

    @property
    def place(self) -> str:
        """The URL with which it was opened."""

    def put(self, key: str, content: bytes | Path, *, written_ns: int = 0) -> Tag:
        """Creates or replaces an object; every reader sees it once this returns."""

    def put_if_absent(self, key: str, content: bytes) -> Tag | None:
        """Creates an object; returns None, and changes nothing, if it exists.

        `content` must be unique to the writer (hold a nonce): a writer whose response was lost
        recognizes by it that it succeeded.
        """

    def replace(self, key: str, content: bytes, *, tag: Tag) -> Tag | None:
        """Replaces the version `tag` of an object; returns None, and changes nothing, if the object
        has another version or is gone. `content` is as for `put_if_absent`."""

    def get(self, key: str) -> Stored | None:
        """The object, or None."""

    def download(self, key: str, file: Path) -> bool:
        """Writes an object to a new file, with its time of writing; returns whether it exists."""

    def with_timeouts(self, timeouts: Timeouts) -> ObjectStore:
        """The same store with other timeouts."""

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All objects whose key begins with `prefix`, which is empty or ends with a slash.

        Objects with a key that is not plain are left out.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; missing ones are no error."""


def is_url(place: str) -> bool:
    """Whether a place is a URL, as s3://bucket/sweeps, and not a path."""
    return _URL.fullmatch(place) is not None


def checked_url(place: str) -> str:
    """The URL without a trailing slash; raises InputError if it is not one of a bucket."""
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
    """Whether a key is names separated by slashes, none of them hidden or `..`."""
    return all(_PART.fullmatch(part) for part in key.split("/"))
