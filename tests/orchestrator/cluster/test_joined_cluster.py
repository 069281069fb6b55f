"""Which Ray is joined or started: a cluster that does not answer is told within seconds."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.cluster import joined_cluster
from orchestrator.cluster.joined_cluster import cluster_is_gone, ray_start
from trainables.errors import InputError

SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # the first frame of a server of HTTP/2
LONG = "x" * 120


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """The address of a server that answers each connection with these bytes, None: never."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                kept.append(client)
                if answer is not None:
                    client.sendall(answer)
                    client.shutdown(socket.SHUT_WR)

        threading.Thread(target=serve, daemon=True).start()
        yield "{}:{}".format(*server.getsockname())
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def gone() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return "{}:{}".format(*server.getsockname())


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was notified; nothing has been started on this machine, and nothing is set."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(joined_cluster, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(joined_cluster, "folder_for_sockets", lambda length, first: first)
    return []


def started(tmp_path: Path, address: str) -> None:
    """As `ray start` leaves it."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)


@pytest.mark.parametrize("address", [None, "auto"])
def test_the_variable_of_a_cluster_that_is_gone_is_named(
    address: str | None, gone: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", gone)
    began = time.monotonic()
    with pytest.raises(InputError) as raised:
        ray_start(address, said.append)
    assert time.monotonic() - began < 5
    message = raised.value.messages[0]
    assert message.startswith(f"RAY_ADDRESS={gone}: no Ray cluster answers there (Connection ref")
    assert "unset RAY_ADDRESS or give --address local" in message


def test_an_address_that_is_given_counts_more_than_the_variable(
    gone: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=f"^--address {gone}: no Ray cluster .*leave --address"):
        ray_start(gone, said.append)
    assert ray_start("local", said.append).address == "local"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(None, "no answer within 0.3 seconds"), (b"HTTP/1.1 400", "what listens there is no Ray")],
)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_listens_and_is_no_ray_is_told(
    answer: bytes | None, reason: str, scheme: str, said: list[str]
) -> None:
    with listening(answer) as address, pytest.raises(InputError, match=reason):
        ray_start(scheme + address, said.append)


def test_a_cluster_that_answers_is_joined(said: list[str], tmp_path: Path) -> None:
    with listening(SETTINGS) as address:
        assert ray_start(address, said.append).address == address
        assert not cluster_is_gone(address)
        started(tmp_path, address)
        assert ray_start("auto", said.append).address is None
        assert ray_start(None, said.append).address is None


def test_auto_is_what_ray_start_has_started_and_not_another_sweep_s_ray(
    said: list[str], gone: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no `ray start` has left its address in "):
        ray_start("auto", said.append)
    started(tmp_path, gone)
    with pytest.raises(InputError, match=f"--address auto: .*{gone}: Connection refused"):
        ray_start("auto", said.append)


def test_without_an_address_a_cluster_that_is_gone_is_left_for_a_ray_of_our_own(
    said: list[str], gone: str, tmp_path: Path
) -> None:
    started(tmp_path, gone)
    assert ray_start(None, said.append).address == "local"
    assert [line for line in said if gone in line and "is gone" in line]


def test_auto_in_the_variable_does_not_let_ray_look_on_its_own(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(InputError, match=r"^RAY_ADDRESS=auto: "):
        ray_start(None, said.append)
    with listening(SETTINGS) as address:
        started(tmp_path, address)
        assert ray_start(None, said.append).address is None
        assert "RAY_ADDRESS" not in os.environ


def test_a_folder_with_a_long_name_is_replaced_by_a_short_one(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", f"/tmp/{LONG}")
    assert ray_start("local", said.append).folder == Path("/tmp/ray")
    assert said == [
        "TMPDIR is too long a name for sockets, or can't be written: Ray uses /tmp/ray."
    ]


def test_where_no_folder_serves_the_variable_is_named(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{LONG}")
    monkeypatch.setattr(joined_cluster, "folder_for_sockets", lambda length, first: None)
    with pytest.raises(InputError, match=f"^RAY_TMPDIR=/tmp/{LONG}: .*Set RAY_TMPDIR"):
        ray_start("local", said.append)
