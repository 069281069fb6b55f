"""Checks that all nodes share the storage, by writing and reading files from each of them.

A folder that is not shared exists on every machine, each with its own content: trials would fail
there, or be trained again after the head is gone. So a file is written here and read on each node,
and the reverse. A bucket is shared, but each node must be able to read, write and list it with its
own credentials.

SQLite's locks do not work on network storage: a database there gets corrupted.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster.nodes import Node, alive_nodes, run_on_all_nodes
from orchestrator.runs.lease_holder import this_place
from trainables.errors import InputError
from trainables.storage.bucket_store import open_store
from trainables.storage.errors import StorageError
from trainables.storage.object_store import ObjectStore, is_url

_OURS = "driver"


@dataclass(frozen=True)
class StorageView:
    """The storage as one node sees it; `fault` is empty if both read what the other has written."""

    node: Node
    same_machine: bool  # as this process, which proves nothing about a shared folder
    fault: str = ""


def check_storage(storage: Path | str) -> bool:
    """Raises InputError if some node of the running cluster does not share the storage.

    `storage` is a folder or a URL. Returns whether other machines see the folder, in which case it
    must not hold a SQLite database. On a cluster of one node a folder is not inspected.
    """
    nodes = alive_nodes()
    if len(nodes) == 1 and not is_url(str(storage)):
        return False
    views = inspect_storage(storage, nodes)
    reason = unshared_reason(storage, views)
    if reason:
        raise InputError(f"--storage: {reason}")
    return not is_url(str(storage)) and any(not view.same_machine for view in views)


def inspect_storage(storage: Path | str, nodes: Sequence[Node]) -> list[StorageView]:
    """Writes a file here and one on every node, and reads each on the other side.

    `storage` is a folder or the URL of one in a bucket. The files are deleted. Raises OSError or
    StorageError if this process cannot write there.
    """
    if is_url(str(storage)):
        return _inspect_bucket(str(storage), nodes)
    storage = Path(storage)
    storage.mkdir(parents=True, exist_ok=True)
    probe, content = storage / f".seen-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    probe.mkdir()
    try:
        (probe / _OURS).write_text(content)
        results = run_on_all_nodes(nodes, inspect_from_node, str(probe), content)
        return [
            StorageView(
                each.node,
                same_machine=bool(each.value) and each.value["place"] == this_place(),
                fault=each.error
                or each.value["fault"]
                or _unread(probe, each.value["file"], content),
            )
            for each in results
        ]
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def unshared_reason(storage: Path | str, views: Sequence[StorageView]) -> str:
    """Why the nodes do not share the storage; empty if they do."""
    without = [view for view in views if view.fault]
    if not without:
        return ""
    faults = "; ".join(f"{view.node.name}: {view.fault}" for view in without)
    if is_url(str(storage)):
        return (
            f"{storage} cannot be used by all nodes ({faults}). See docs/storage.md: credentials."
        )
    return (
        f"{storage} is not shared by all nodes ({faults}). Give --storage a folder that every node "
        "mounts at this path (NFS, EFS, Filestore), or leave those nodes out."
    )


def inspect_from_node(probe: str, content: str) -> dict[str, object]:
    """Runs on a node: returns what is wrong with the folder, and the file that it has written."""
    folder, name = Path(probe), uuid.uuid4().hex
    fault = ""
    try:
        if (folder / _OURS).read_text() != content:
            fault = "it reads another file there"
        else:
            (folder / name).write_text(content)
    except FileNotFoundError:
        fault = "it is another folder there, or none"
    except OSError as error:
        fault = f"{error.strerror} there"
    return {"place": this_place(), "fault": fault, "file": name}


def inspect_bucket_from_node(url: str, probe: str, content: str) -> dict[str, object]:
    """Runs on a node: returns what is wrong with reading, listing or conditional writes."""
    try:
        store = open_store(url)
        fault = _bucket_fault(store, probe, content)
    except (InputError, StorageError) as error:
        fault = str(error)
    except ImportError as error:
        fault = f"{error}; install the same packages there as here"
    return {"place": this_place(), "fault": fault}


def _inspect_bucket(url: str, nodes: Sequence[Node]) -> list[StorageView]:
    store = open_store(url)
    probe, content = f"seen-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    try:
        store.put(f"{probe}/{_OURS}", content.encode())
        results = run_on_all_nodes(nodes, inspect_bucket_from_node, url, probe, content)
        return [
            StorageView(
                each.node,
                same_machine=bool(each.value) and each.value["place"] == this_place(),
                fault=each.error or each.value["fault"],
            )
            for each in results
        ]
    finally:
        store.delete(item.key for item in store.list(f"{probe}/"))


def _bucket_fault(store: ObjectStore, probe: str, content: str) -> str:
    ours, own = f"{probe}/{_OURS}", f"{probe}/{uuid.uuid4().hex}"
    found = store.get(ours)
    if found is None or found.content.decode(errors="replace") != content:
        return "it does not read there what the driver wrote: another bucket or server of this name"
    if store.put_if_absent(own, content.encode()) is None:
        return "an object that does not exist cannot be created there"
    if store.put_if_absent(own, uuid.uuid4().hex.encode()) is not None:
        return "the server overwrites an object that exists: it does not honour If-None-Match"
    return "" if own in [item.key for item in store.list(f"{probe}/")] else "it cannot be listed"


def _unread(probe: Path, name: str, content: str) -> str:
    """Why this process does not read what the node has written; empty if it does."""
    try:
        return "" if (probe / name).read_text() == content else "what it writes differs here"
    except OSError as error:
        return f"what it writes is not here ({error.strerror})"
