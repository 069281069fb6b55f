"""Storage that some node does not share is refused; SQLite is never put on shared storage.

The view of other machines is simulated here; tests/orchestrator/doctor/test_checks.py uses real
nodes that differ, tests/cluster real hosts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster.nodes import Node
from orchestrator.cluster.storage_check import StorageView, inspect_from_node, unshared_reason
from orchestrator.tracking.sqlite_store import network_filesystem, refuse_shared_sqlite
from trainables.errors import InputError

MOUNTS = """\
/dev/root / ext4 rw 0 0
fs-1.efs.us-west-2.amazonaws.com:/ /shared nfs4 rw,vers=4.1 0 0
tmpfs /shared/scratch tmpfs rw 0 0
server:/home /home\\040of\\040all nfs rw 0 0
"""


def _view(name: str, fault: str = "") -> StorageView:
    return StorageView(Node(name, name, 1, 0, False), same_machine=False, fault=fault)


def test_storage_that_all_nodes_see_is_fine() -> None:
    assert unshared_reason(Path("/shared"), [_view("10.0.0.1"), _view("10.0.0.2")]) == ""


def test_the_node_that_does_not_see_it_is_named_with_the_reason() -> None:
    said = unshared_reason(
        Path("/data/runs"), [_view("10.0.0.1"), _view("10.0.0.2", "it is another folder there")]
    )
    assert "/data/runs is not shared" in said
    assert "10.0.0.2: it is another folder there" in said and "10.0.0.1" not in said
    assert "--storage" in said


def test_a_node_reads_what_was_written_and_writes_an_own_file(tmp_path: Path) -> None:
    (tmp_path / "driver").write_text("a word")
    seen = inspect_from_node(str(tmp_path), "a word")
    assert seen["fault"] == ""
    assert (tmp_path / str(seen["file"])).read_text() == "a word"


def test_a_node_with_another_folder_at_that_path_says_so(tmp_path: Path) -> None:
    assert "another folder" in str(inspect_from_node(str(tmp_path), "a word")["fault"])
    (tmp_path / "driver").write_text("of another driver")
    assert "another file" in str(inspect_from_node(str(tmp_path), "a word")["fault"])


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/shared/runs", "nfs4"),
        ("/shared", "nfs4"),
        ("/shared/scratch/runs", ""),
        ("/sharedish", ""),
        ("/home of all/me", "nfs"),
        ("/var/tmp", ""),
    ],
)
def test_the_file_system_of_the_longest_mount_point_counts(path: str, kind: str) -> None:
    assert network_filesystem(Path(path), MOUNTS) == kind


def test_sqlite_on_network_storage_is_refused() -> None:
    with pytest.raises(InputError, match=r"nfs4 storage.*--tracking-uri http://HEAD:5000"):
        refuse_shared_sqlite("sqlite:////shared/runs/mlflow.db", mounts=MOUNTS)


def test_sqlite_in_a_folder_that_other_machines_see_is_refused(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    refuse_shared_sqlite(uri, mounts=MOUNTS)
    with pytest.raises(InputError, match="which other machines share"):
        refuse_shared_sqlite(uri, shared_folder=tmp_path, mounts=MOUNTS)


@pytest.mark.parametrize(
    "uri", ["http://10.0.0.1:5000", "postgresql://db/mlflow", "sqlite:////var/lib/mlflow.db"]
)
def test_other_stores_are_left_alone(uri: str) -> None:
    refuse_shared_sqlite(uri, shared_folder=Path("/shared"), mounts=MOUNTS)
