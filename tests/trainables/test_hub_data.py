"""Data sets of the hub: fetched once per node by `datasets`, at one commit; no code is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from orchestrator.shipped_files import resolve_data_paths
from tests.hub_server import COMMIT, Hub, hub_server
from trainables.errors import InputError
from trainables.hub_data import HubData, fetched_split, resolved_commit

REPOSITORY = Path(__file__).resolve().parent.parent.parent
NAME = "owner/rows"
CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: train.jsonl}
  - {split: test, path: test.jsonl}
dataset_info:
  config_name: default
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': up, '1': down}}}
  - name: tags
    sequence: {class_label: {names: {'0': O, '1': B-ORG}}}
---
"""
ROWS = [{"text": f"row {at}", "label": at % 2, "tags": [0, 1]} for at in range(3)]
_FETCH = """
import json, sys
if "without" in sys.argv:
    sys.modules["datasets"] = None
from trainables.errors import InputError
from trainables.hub_data import HubData, fetched_split, resolved_commit
name, revision, split, subset = json.loads(sys.argv[1])
try:
    data = HubData(name, resolved_commit(name, revision), (split,), subset)
    print(fetched_split(data, split))
except InputError as error:
    sys.exit(f"refused: {error}")
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    with hub_server(folder, name=NAME, kind="datasets") as hub:
        yield hub


def start(
    hub: Hub,
    home: Path,
    *words: str,
    revision: str = COMMIT,
    split: str = "train",
    subset: str | None = None,
    **environment: str,
) -> subprocess.Popen[str]:
    """A process of its own, as a host is one: huggingface_hub reads its settings once."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given = json.dumps([hub.name, revision, split, subset])
    return subprocess.Popen(
        [sys.executable, "-c", _FETCH, given, *words],
        cwd=REPOSITORY,
        env={**own, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fetch(hub: Hub, home: Path, *words: str, **given: Any) -> tuple[int, str]:
    """The exit code, and the file or why it can't be had."""
    return ended(start(hub, home, *words, **given))


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, (out if process.returncode == 0 else err).strip()


def test_two_processes_fetch_once_and_then_neither_hub_nor_package_is_asked(
    hub: Hub, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    both = [start(hub, home, revision="main") for _ in range(2)]
    [(code, file), (other_code, other)] = [ended(process) for process in both]
    assert (code, other_code) == (0, 0), (file, other)
    assert file == other and hub.gets("train.jsonl") == 1
    assert parquet.read_table(file).to_pylist() == [
        {"text": f"row {at}", "label": ("up", "down")[at % 2], "tags": ["O", "B-ORG"]}
        for at in range(3)
    ]
    hub.asked.clear()
    assert fetch(hub, home, "without") == (0, file)
    assert fetch(hub, home, "without", revision="main", HF_HUB_OFFLINE="1") == (0, file)
    assert hub.asked == []


def test_what_is_missing_offline_or_without_the_package_is_told(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    code, told = fetch(hub, home, "without")
    assert code == 1 and "needs the package datasets: pip install 'sweep-orchestrator[hub]'" in told
    code, told = fetch(hub, home, HF_HUB_OFFLINE="1")
    assert code == 1 and f"refused: data.hub: {NAME} at {COMMIT} can't be fetched by" in told
    code, told = fetch(hub, home, revision="main", HF_HUB_OFFLINE="1")
    assert code == 1 and "was never fetched here. Name a commit that is cached" in told
    assert not any("rows" in line for line in hub.asked)


def test_a_split_or_a_subset_that_is_not_there_is_told_with_those_that_are(
    hub: Hub, tmp_path: Path
) -> None:
    code, told = fetch(hub, tmp_path / "home", split="valid")
    assert code == 1 and "has no split 'valid'; it has train, test" in told
    code, told = fetch(hub, tmp_path / "home", subset="large")
    assert code == 1 and "(large)" in told and "default" in told


def test_a_malformed_file_is_told(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "train.jsonl").write_text('{"text": "a", "label": \n')
    code, told = fetch(hub, tmp_path / "home")
    assert code == 1 and f"refused: data.hub: {NAME} at {COMMIT} can't be fetched" in told


def test_the_code_of_a_data_set_is_never_run(hub: Hub, tmp_path: Path) -> None:
    shutil.rmtree(hub.folder)
    hub.folder.mkdir()
    (hub.folder / "rows.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n")
    code, told = fetch(hub, tmp_path / "home", HF_DATASETS_TRUST_REMOTE_CODE="1")
    assert code == 1 and "refused: data.hub" in told and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "told"), [("own/name", "is a folder here too"), ("../own", "is no id of a data set")]
)
def test_a_folder_is_never_read_in_the_place_of_a_data_set(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_data_paths({"hub": name}) == {"hub": name}
    with pytest.raises(InputError, match=told):
        resolved_commit(name, COMMIT)
    with pytest.raises(InputError, match=told):
        fetched_split(HubData(name, COMMIT, ("train",)), "train")


def test_a_commit_is_itself_and_the_hub_is_not_asked_for_it() -> None:
    assert resolved_commit("owner/none", COMMIT) == COMMIT
