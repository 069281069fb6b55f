"""BucketStore: objects in S3 or Google Cloud Storage, through obstore."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from trainables.errors import InputError
from trainables.storage.errors import StorageError, storage_errors
from trainables.storage.object_store import (
    LONG_TIMEOUTS,
    Listed,
    ObjectStore,
    Stored,
    Tag,
    Timeouts,
    checked_url,
    plain_key,
)

CHUNK_BYTES = 64 * 2**20  # of a large object, per request
_LEAST_PART_BYTES, _MOST_PARTS = 8 * 2**20, 8000  # S3 takes 10,000 parts of an upload
_WRITTEN = "written-ns"  # an object's metadata: when its file was written, in nanoseconds
_CODE = re.compile(r"<Code>([0-9A-Za-z.]{1,60})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")


def open_store(url: str) -> ObjectStore:
    """The store at a URL, to which no request is made yet. Raises InputError."""
    return _opened(checked_url(url), os.environ.get("AWS_ENDPOINT_URL", ""), LONG_TIMEOUTS)


@functools.lru_cache(maxsize=64)
def _opened(url: str, endpoint: str, timeouts: Timeouts) -> BucketStore:
    """The store of a place, one per process, so that its users share connections."""
    from obstore.store import GCSStore, S3Store

    scheme, _, rest = url.partition("://")
    bucket, _, folder = rest.partition("/")
    options: Any = {
        "timeout": timedelta(seconds=timeouts.request_seconds),
        "connect_timeout": timedelta(seconds=10),
        "allow_http": endpoint.startswith("http://"),
    }
    waits = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5)}
    retries: Any = {
        "retry_timeout": timedelta(seconds=timeouts.retry_seconds),
        "max_retries": 10_000,  # the timeout limits them: the default, ten, takes only seconds
        "backoff": {**waits, "base": 2},
    }
    again = functools.partial(_opened, url, endpoint)
    prefix = folder or None
    if scheme == "gs":
        google = GCSStore(bucket, prefix=prefix, client_options=options, retry_config=retries)
        return BucketStore(url, google, again=again)
    own: Any = {}
    if (provider := _profile()) is not None:
        own["credential_provider"] = provider
    amazon = S3Store(bucket, prefix=prefix, client_options=options, retry_config=retries, **own)
    return BucketStore(url, amazon, again=again)


def _profile() -> Any | None:
    """The provider of credentials from AWS's files, which boto3 reads.

    None if the environment holds credentials, or if the machine's role is to be used.
    """
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    file = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    if "AWS_PROFILE" not in os.environ and not Path(file).expanduser().is_file():
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise InputError(
            "AWS credentials lie in a profile, which boto3 reads, and it is not installed. "
            "Install boto3, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    return Boto3CredentialProvider()


class BucketStore:
    """An ObjectStore of obstore: S3, Google Cloud or, in tests, memory.

    `again` opens the same store with other timeouts; memory has none.
    """

    def __init__(
        self, place: str, store: Any, *, again: Callable[[Timeouts], ObjectStore] | None = None
    ) -> None:
        self._place = place
        self._store = store
        self._again = again

    def with_timeouts(self, timeouts: Timeouts) -> ObjectStore:
        return self if self._again is None else self._again(timeouts)

    @property
    def place(self) -> str:
        return self._place

    def put(self, key: str, content: bytes | Path, *, written_ns: int = 0) -> Tag:
        import obstore

        attributes = {_WRITTEN: str(written_ns)} if written_ns else None
        self._refuse_unlisted(key)
        with self._errors(key, "written"):
            part = _part_bytes(content)
            found = obstore.put(self._store, key, content, attributes=attributes, chunk_size=part)
            return _tag(found)

    def put_if_absent(self, key: str, content: bytes) -> Tag | None:
        return self._conditional(key, content, mode="create")

    def replace(self, key: str, content: bytes, *, tag: Tag) -> Tag | None:
        known = {"e_tag": tag.e_tag, "version": tag.version}
        mode = {name: value for name, value in known.items() if value is not None}
        return self._conditional(key, content, mode=mode)

    def get(self, key: str) -> Stored | None:
        import obstore

        self._refuse_unlisted(key)
        with self._errors(key, "read"):
            try:
                found = obstore.get(self._store, key)
            except FileNotFoundError:
                return None
            return Stored(bytes(found.bytes()), _tag(found.meta), _written_ns(found.attributes))

    def download(self, key: str, file: Path) -> bool:
        import obstore

        self._refuse_unlisted(key)
        with self._errors(key, "read"):
            try:
                found = obstore.get(self._store, key)
            except FileNotFoundError:
                return False
            with storage_errors(file), file.open("xb") as part:
                for chunk in self._chunks(key, found):
                    part.write(chunk)
            _set_written(file, _written_ns(found.attributes))
            return True

    def list(self, prefix: str = "") -> Iterator[Listed]:
        import obstore

        with self._errors(prefix, "listed"):
            for page in obstore.list(self._store, prefix=prefix.rstrip("/") or None):
                for item in page:
                    if plain_key(item["path"]) and item["path"].startswith(prefix):
                        yield Listed(item["path"], item["size"], _tag(item))

    def delete(self, keys: Iterable[str]) -> None:
        import obstore

        wanted = [*keys]
        with self._errors(next(iter(wanted), ""), "deleted"):
            if wanted:
                with contextlib.suppress(FileNotFoundError):
                    obstore.delete(self._store, wanted)

    def _chunks(self, key: str, found: Any) -> Iterator[bytes]:
        """The content of an object; of a large one in several requests, all of one version."""
        import obstore

        size, tag = found.meta["size"], found.meta["e_tag"]
        if size <= CHUNK_BYTES:
            yield from found.stream()
            return
        for start in range(0, size, CHUNK_BYTES):
            options: Any = {"range": (start, min(start + CHUNK_BYTES, size)), "if_match": tag}
            yield bytes(obstore.get(self._store, key, options=options).bytes())

    def _conditional(self, key: str, content: bytes, *, mode: Any) -> Tag | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        self._refuse_unlisted(key)
        with self._errors(key, "written"):
            try:
                return _tag(obstore.put(self._store, key, content, mode=mode))
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                pass
        found = self.get(key)  # a repeated request fails because of the first one's success
        return found.tag if found is not None and found.content == content else None

    def _refuse_unlisted(self, key: str) -> None:
        """Raises StorageError for a key that no listing has: it would never be fetched."""
        if not plain_key(key):
            raise StorageError(f"{self._place}/{key}: is no plain name, so it can't be stored.")

    @contextmanager
    def _errors(self, key: str, done: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except StorageError:
            raise
        except (BaseError, OSError, ValueError) as error:
            place = f"{self._place}/{key}".rstrip("/")
            raise StorageError(f"{place}: can't be {done} ({_reason(error)}") from None


def _part_bytes(content: bytes | Path) -> int:
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    return max(_LEAST_PART_BYTES, -(-size // _MOST_PARTS))


def _tag(found: Any) -> Tag:
    return Tag(found["e_tag"], found["version"])


def _written_ns(attributes: Any) -> int:
    """The time in an object's metadata; 0 if there is none, or something else than a number."""
    text = str(attributes.get(_WRITTEN, ""))
    return int(text) if text.isdigit() and len(text) < 20 else 0


def _set_written(file: Path, written_ns: int) -> None:
    if written_ns:
        os.utime(file, ns=(written_ns, written_ns))


def _reason(error: Exception) -> str:
    """Why a request failed, and what to do. Of a server's answer only its codes are shown: it may
    hold credentials."""
    text = str(error)
    code = next(iter(_CODE.findall(text)), "")
    status = next(iter(_STATUS.findall(text)), "")
    codes = " ".join(part for part in (f"HTTP {status}" if status else "", code) if part)
    first_line = (text.strip().splitlines() or [""])[0].partition("<?xml")[0][:200].strip()
    return f"{codes or first_line or type(error).__name__}). {_hint(code, status)}"


def _hint(code: str, status: str) -> str:
    if code == "NoSuchBucket":
        return "Make the bucket first, or give another one."
    if status in ("401", "403") or code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return (
            "Give credentials that may read, write, list and delete there, as AWS's or Google's "
            "own tools take them (docs/storage.md), then resume."
        )
    if status in ("301", "307", "400"):
        return "Set AWS_REGION to the bucket's region, then resume."
    return "See whether the service can be reached from here (AWS_ENDPOINT_URL), then resume."
