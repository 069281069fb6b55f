"""The contract of every object store: an S3 bucket (moto's server), obstore's memory store.

Google Cloud is accessed by the same class as S3; no local server for it is available.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.buckets import new_place, s3_server
from trainables.errors import InputError
from trainables.storage import bucket_store
from trainables.storage.bucket_store import BucketStore, open_store
from trainables.storage.errors import StorageError
from trainables.storage.object_store import ObjectStore, Tag, Timeouts, checked_url, plain_key

RACERS = 12


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


def _memory() -> ObjectStore:
    from obstore.store import MemoryStore

    return BucketStore("memory://", MemoryStore())


def _s3() -> ObjectStore:
    return open_store(new_place())


KINDS: dict[str, Callable[[], ObjectStore]] = {"memory": _memory, "s3": _s3}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "s3":
        request.getfixturevalue("s3")
    return KINDS[request.param]()


def content(store: ObjectStore, key: str) -> bytes | None:
    found = store.get(key)
    return None if found is None else found.content


def test_what_is_put_is_there_and_replaces_what_was(store: ObjectStore) -> None:
    assert store.get("a/b.json") is None
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two")
    assert content(store, "a/b.json") == b"two"


def test_a_file_is_put_and_fetched_with_the_time_it_was_written(
    store: ObjectStore, tmp_path: Path
) -> None:
    given, back = tmp_path / "given", tmp_path / "back"
    given.write_bytes(bytes(range(256)) * 40_000)  # more than one part of a large upload
    written_ns = 1_700_000_000_123_456_789
    store.put("large", given, written_ns=written_ns)
    assert store.download("large", back)
    assert back.read_bytes() == given.read_bytes()
    assert back.stat().st_mtime_ns == written_ns
    assert not store.download("absent", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_large_object_is_read_piece_by_piece_and_all_of_one_version(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_store, "CHUNK_BYTES", 1000)
    store.put("large", bytes(range(250)) * 41)
    assert store.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == bytes(range(250)) * 41


def test_an_empty_object_is_one(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert content(store, "empty") == b""


def test_it_is_created_only_if_it_is_absent(store: ObjectStore) -> None:
    assert store.put_if_absent("lock", b"first") is not None
    assert store.put_if_absent("lock", b"second") is None
    assert content(store, "lock") == b"first"


def test_whose_answer_was_lost_knows_its_own_content_again(store: ObjectStore) -> None:
    first = store.put_if_absent("lock", b"a nonce")
    assert store.put_if_absent("lock", b"a nonce") == first


def test_of_many_that_create_it_at_once_one_does(store: ObjectStore) -> None:
    for attempt in range(5):
        key = f"race-{attempt}"
        made = at_once(partial(store.put_if_absent, key))
        winners = [number for number, tag in enumerate(made) if tag is not None]
        assert len(winners) == 1
        assert content(store, key) == b"%d" % winners[0]


def test_only_the_version_that_is_known_is_replaced(store: ObjectStore) -> None:
    first = store.put("lease", b"one")
    second = store.replace("lease", b"two", tag=first)
    assert second is not None and second != first
    assert store.replace("lease", b"three", tag=first) is None
    assert content(store, "lease") == b"two"
    assert store.replace("lease", b"three", tag=second) is not None
    assert content(store, "lease") == b"three"


def test_what_is_gone_is_not_replaced(store: ObjectStore) -> None:
    tag = store.put("lease", b"one")
    store.delete(["lease"])
    assert store.replace("lease", b"two", tag=tag) is None
    assert store.get("lease") is None


def test_of_many_that_replace_one_version_at_once_one_does(store: ObjectStore) -> None:
    for _ in range(5):
        tag = store.put("lease", b"begin")
        made = at_once(partial(store.replace, "lease", tag=tag))
        winners = [number for number, found in enumerate(made) if found is not None]
        assert len(winners) == 1
        assert content(store, "lease") == b"%d" % winners[0]


def test_a_reader_sees_the_old_or_the_new_one(store: ObjectStore) -> None:
    versions = [bytes([number]) * 100_000 for number in range(20)]
    store.put("file", versions[0])
    over = threading.Event()

    def read() -> set[bytes]:
        seen = set()
        while not over.is_set():
            seen.add(content(store, "file") or b"none")
        return seen

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for version in versions:
            store.put("file", version)
        over.set()
    assert reader.result() <= set(versions)


def test_a_listing_names_all_below_a_prefix_with_size_and_version(store: ObjectStore) -> None:
    tags = {key: store.put(key, key.encode()) for key in ("a/x", "a/b/y", "ab/z", "top")}
    assert {item.key: item.size for item in store.list("a/")} == {"a/x": 3, "a/b/y": 5}
    assert {item.key: item.tag for item in store.list()} == tags
    assert list(store.list("nothing/")) == []


@pytest.mark.slow
def test_a_listing_of_many_is_whole(store: ObjectStore) -> None:
    with ThreadPoolExecutor(RACERS) as pool:
        list(pool.map(lambda number: store.put(f"many/{number:04}", b""), range(1100)))
    assert len(list(store.list("many/"))) == 1100


def test_what_is_deleted_is_gone_and_may_have_been_before(store: ObjectStore) -> None:
    for key in ("a/x", "a/y", "b"):
        store.put(key, b"")
    store.delete(["a/x", "a/y", "never"])
    store.delete([])
    assert [item.key for item in store.list()] == ["b"]


def test_a_listing_leaves_out_what_has_no_plain_key(tmp_path: Path, s3: None) -> None:
    import obstore

    store = open_store(new_place())
    assert isinstance(store, BucketStore)
    for key in (".hidden", "a b", "trials/.part", "trials/ok"):
        obstore.put(store._store, key, b"")
    assert [item.key for item in store.list()] == ["trials/ok"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host/x", "s3://BUCKET/FOLDER"),
        ("s3://", "needs s3://BUCKET/FOLDER"),
        ("s3://bucket/../up", "letters, digits"),
        ("s3://bucket/a?b", "letters, digits"),
        ("gs://bucket//a", "letters, digits"),
    ],
)
def test_a_url_that_names_no_place_is_refused(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked_url(url)


def test_a_bucket_that_is_not_there_is_said_with_what_to_do(s3: None) -> None:
    store = open_store("s3://no-such-bucket/sweeps")
    with pytest.raises(StorageError, match=r"no-such-bucket/sweeps/a.*NoSuchBucket.*Make the"):
        store.put("a", b"")


def test_what_a_server_says_of_credentials_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        "Error performing PUT http://host/b/k - Server returned non-2xx status code: 403 Forbidden:"
        " <Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>"
    )
    told = bucket_store._reason(RuntimeError(said))
    assert told.startswith("HTTP 403 InvalidAccessKeyId). Give credentials")
    assert "AKIASECRET" not in told


def test_a_server_that_is_away_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-no-account")
    patience = Timeouts(retry_seconds=0.2, request_seconds=1)
    store = open_store(new_place()).with_timeouts(patience)
    with pytest.raises(StorageError, match=r"can't be read.*can be reached from here"):
        store.get("a")


@pytest.mark.slow
def test_nobody_notices_a_server_that_is_overloaded_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """obstore's own limit, ten repetitions, is reached within eight seconds."""
    with s3_server(busy_seconds=15) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store = open_store(new_place())
        began = time.monotonic()
        store.put("a", b"1")
        assert time.monotonic() - began > 10, "the server was not overloaded"
        stored = store.get("a")
        assert stored is not None and stored.content == b"1"


@pytest.mark.parametrize(
    "key",
    ["../up", "a/../up", "/root", "a//b", "a/", "", ".hidden", "a/.part", "a\nb", "a b"],
)
def test_no_key_leads_elsewhere_or_is_hidden_from_a_listing(store: ObjectStore, key: str) -> None:
    assert not plain_key(key)
    with pytest.raises(StorageError, match="no plain name"):
        store.put(key, b"1")
    with pytest.raises(StorageError, match="no plain name"):
        store.put_if_absent(key, b"1")
    with pytest.raises(StorageError, match="no plain name"):
        store.replace(key, b"1", tag=Tag("any"))
    with pytest.raises(StorageError, match="no plain name"):
        store.get(key)
    assert list(store.list()) == []


def at_once(do: Callable[[bytes], Tag | None]) -> list[Tag | None]:
    """Calls `do` from RACERS threads at once, each with its number; returns the results."""
    barrier = threading.Barrier(RACERS)

    def one(number: int) -> Tag | None:
        barrier.wait()
        return do(b"%d" % number)

    with ThreadPoolExecutor(RACERS) as pool:
        return list(pool.map(one, range(RACERS)))
