"""Folders for sockets: the user's where a socket's path fits, else /tmp."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.cluster import socket_folder
from orchestrator.cluster.forked_python import ForkedPython
from orchestrator.cluster.socket_folder import LONGEST_SOCKET_PATH, folder_for_sockets


def test_the_longest_path_that_is_allowed_can_be_bound(tmp_path: Path) -> None:
    name = LONGEST_SOCKET_PATH - len(str(tmp_path)) - 1
    assert folder_for_sockets(name, first=tmp_path) == tmp_path
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / ("x" * name)))
    assert folder_for_sockets(name + 1, first=tmp_path) == Path("/tmp")


def test_a_folder_that_is_not_there_yet_may_come_below_one_that_is(tmp_path: Path) -> None:
    assert folder_for_sockets(1, first=tmp_path / "new") == tmp_path / "new"
    (tmp_path / "file").write_text("")
    assert folder_for_sockets(1, first=tmp_path / "file" / "new") == Path("/tmp")


def test_characters_count_by_their_bytes(tmp_path: Path) -> None:
    name = LONGEST_SOCKET_PATH - len(str(tmp_path)) - 3
    assert folder_for_sockets(name, first=tmp_path / "x") == tmp_path / "x"
    assert folder_for_sockets(name, first=tmp_path / "ö") == Path("/tmp")


def test_without_any_folder_there_is_none_and_nothing_is_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_folder, "_SHORT", tmp_path / ("x" * 120))
    assert folder_for_sockets(1, first=tmp_path / ("y" * 120)) is None
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / ("y" * 120)))
    with ForkedPython(cpus=1) as forked:
        assert len(forked.python) == 1
