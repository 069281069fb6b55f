"""The download of data sets, from a real HTTP server on this machine."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from trainables.errors import InputError
from trainables.tasks import download
from trainables.tasks.download import blob_id
from trainables.tasks.finqa.task import FinQA
from trainables.tasks.source import Source

CONTENT = {"train.json": b'[{"id": 1}]\n', "dev.json": b"[]\n"}


class Quiet(http.server.SimpleHTTPRequestHandler):
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Source]:
    """A source whose files are served from tmp_path/served."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    Quiet.requests.clear()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        blobs = {name: blob_id(content) for name, content in CONTENT.items()}
        yield Source(f"http://127.0.0.1:{serving.server_port}/", blobs)
        serving.shutdown()
        thread.join()


def test_the_blob_id_is_gits() -> None:
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_all_files_come_whole_and_a_second_run_fetches_nothing(
    server: Source, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "finqa"
    for _ in range(2):
        paths = download.download(server, folder=folder)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert sorted(path.name for path in folder.iterdir()) == sorted(CONTENT)
    assert Quiet.requests == ["/train.json", "/dev.json"]


def test_a_file_with_other_content_is_replaced(server: Source, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("half a fi")
    download.download(server, folder=tmp_path)
    assert (tmp_path / "train.json").read_bytes() == CONTENT["train.json"]


def test_wrong_content_is_never_written(server: Source, tmp_path: Path) -> None:
    (tmp_path / "served" / "train.json").write_text("a proxy's log-in page")
    folder = tmp_path / "data"
    with pytest.raises(InputError, match=r"train\.json: the content's git blob id is"):
        download.download(server, folder=folder)
    assert not folder.exists()


def test_a_file_that_the_server_lacks(server: Source, tmp_path: Path) -> None:
    (tmp_path / "served" / "dev.json").unlink()
    with pytest.raises(InputError, match=r"dev\.json can't be fetched: HTTP Error 404"):
        download.download(server, folder=tmp_path / "data")


def test_offline_it_says_what_to_do_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert FinQA.source is not None
    nobody = Source("http://127.0.0.1:1/", FinQA.source.blobs)
    monkeypatch.setattr(FinQA, "source", nobody)
    assert download.main(["finqa", "--output", str(tmp_path / "data")]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert "can't be fetched" in message
    assert "fetch train.json, dev.json, test.json from http://127.0.0.1:1/" in message
    assert f"put them into {tmp_path / 'data'}" in message


def test_the_command_fetches_and_says_so(
    server: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(FinQA, "source", server)
    assert download.main(["finqa", "--output", str(tmp_path)]) == 0
    assert "train.json: fetched" in capsys.readouterr().out
    assert download.main(["finqa", "--output", str(tmp_path)]) == 0
    assert "train.json: already there" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written(server: Source, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="can't be written"):
        download.download(server, folder=file)


def test_an_unknown_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert download.main(["fniqa"]) == 2
    assert "Did you mean 'finqa'?" in capsys.readouterr().err


def test_a_task_without_files_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FinQA, "source", None)
    assert download.main(["finqa"]) == 2
    assert "finqa: this task has no files to download" in capsys.readouterr().err


def test_the_official_files_are_those_of_one_commit() -> None:
    source = FinQA.source
    assert source is not None
    assert "czyssrs/FinQA/0f16e2867befa6840783e58be38c9efb9229d742/dataset/" in source.base_url
    assert {len(blob) for blob in source.blobs.values()} == {40}
