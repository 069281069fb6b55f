"""Whether the storage is one place for all machines: found out, not assumed. LIGHT.

A folder of one machine looks fine on every other one, where it is another folder: trials would
fail there, or be trained again after the head has gone. So a file is written here and read on each
other machine, and the other way round. A bucket is the same one for all that reach it: each machine
must read, write and list it with credentials of its own.

SQLite's locks do not hold on network storage: a database that lies there is damaged sooner or
later.
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
    """The storage as one node sees it. `fault` is empty where it reads ours and we read its."""

    node: Node
    same_machine: bool  # as this process: nothing is proved by its seeing the folder
    fault: str = ""


def inspect_storage(storage: Path | str, nodes: Sequence[Node]) -> list[StorageView]:
    """Writes a file here and one on every node, and reads each where it was not written.

    `storage` is a folder, or the URL of a bucket's. Nothing stays. Raises OSError if this process
    can't write there.
    """
    if is_url(str(storage)):
        return _inspect_bucket(str(storage), nodes)
    storage = Path(storage)
    storage.mkdir(parents=True, exist_ok=True)
    place, word = storage / f".seen-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    place.mkdir()
    try:
        (place / _OURS).write_text(word)
        answers = run_on_all_nodes(nodes, inspect_from_a_node, str(place), word)
        return [
            StorageView(
                each.node,
                same_machine=bool(each.value) and each.value["place"] == this_place(),
                fault=each.error or each.value["fault"] or _unread(place, each.value["file"], word),
            )
            for each in answers
        ]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def inspect_from_a_node(place: str, word: str) -> dict[str, object]:
    """Runs on a node: what it sees at the place, and the file that it has written there."""
    folder, name = Path(place), uuid.uuid4().hex
    fault = ""
    try:
        if (folder / _OURS).read_text() != word:
            fault = "it reads another file there"
        else:
            (folder / name).write_text(word)
    except FileNotFoundError:
        fault = "it is another folder there, or none"
    except OSError as error:
        fault = f"{error.strerror} there"
    return {"place": this_place(), "fault": fault, "file": name}


def _inspect_bucket(url: str, nodes: Sequence[Node]) -> list[StorageView]:
    store = open_store(url)
    place, word = f"seen-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    try:
        store.put(f"{place}/{_OURS}", word.encode())
        answers = run_on_all_nodes(nodes, inspect_bucket_from_a_node, url, place, word)
        return [
            StorageView(
                each.node,
                same_machine=bool(each.value) and each.value["place"] == this_place(),
                fault=each.error or each.value["fault"],
            )
            for each in answers
        ]
    finally:
        store.delete(item.key for item in store.list(f"{place}/"))


def inspect_bucket_from_a_node(url: str, place: str, word: str) -> dict[str, object]:
    """Runs on a node: whether it reads, lists and writes there, and creates only what is absent."""
    try:
        store = open_store(url)
        fault = _bucket_fault(store, place, word)
    except (InputError, StorageError) as error:
        fault = str(error)
    except ImportError as error:
        fault = f"{error}; install the same packages there as here"
    return {"place": this_place(), "fault": fault}


def _bucket_fault(store: ObjectStore, place: str, word: str) -> str:
    ours, own = f"{place}/{_OURS}", f"{place}/{uuid.uuid4().hex}"
    found = store.get(ours)
    if found is None or found.content.decode(errors="replace") != word:
        return "it does not read there what the driver wrote: another bucket or server of this name"
    if store.put_if_absent(own, word.encode()) is None:
        return "what is absent there can't be created"
    if store.put_if_absent(own, uuid.uuid4().hex.encode()) is not None:
        return "the server creates what is there already: it does not honour If-None-Match"
    return "" if own in [item.key for item in store.list(f"{place}/")] else "it can't be listed"


def unshared(storage: Path | str, views: Sequence[StorageView]) -> str:
    """Why the storage is not one for all of these nodes; empty if it is."""
    without = [view for view in views if view.fault]
    if not without:
        return ""
    told = "; ".join(f"{view.node.name}: {view.fault}" for view in without)
    if is_url(str(storage)):
        return f"{storage} can't be used by all nodes ({told}). See docs/storage.md: credentials."
    return (
        f"{storage} is not shared by all nodes ({told}). Give --storage a folder that every node "
        "mounts at this path (NFS, EFS, Filestore), or leave those nodes out."
    )


def check_storage(storage: Path | str) -> bool:
    """Refuses storage, a folder or a URL, that some node of the running cluster does not share.

    Returns whether other machines see the folder, so that SQLite must not lie there. A folder costs
    nothing on one node. Raises InputError with the reason.
    """
    nodes = alive_nodes()
    if len(nodes) == 1 and not is_url(str(storage)):
        return False
    views = inspect_storage(storage, nodes)
    reason = unshared(storage, views)
    if reason:
        raise InputError(f"--storage: {reason}")
    return not is_url(str(storage)) and any(not view.same_machine for view in views)


def _unread(place: Path, name: str, word: str) -> str:
    """Why this process does not see what the node wrote; empty if it does."""
    try:
        return "" if (place / name).read_text() == word else "what it writes differs here"
    except OSError as error:
        return f"what it writes is not here ({error.strerror})"
