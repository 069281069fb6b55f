"""The holder of a sweep's lease: what the lease says of it, and whether its process is alive."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

HEARTBEAT_SECONDS = 10.0
MISSED_BEATS_ALLOWED = 3
_NUMBERS = ("pid", "taken", "heartbeat", "monotonic")


def read_lease(file: Path) -> dict[str, Any] | None:
    """The content of a lease, or None if there is none, or it is incomplete or damaged, or may not
    be read."""
    try:
        return parsed(lease_content(file))
    except PermissionError:
        return None


def own_lease(*, nonce: str, taken: float) -> dict[str, Any]:
    """The content of this process's lease, with a heartbeat of now."""
    return {
        **this_place(),
        "pid": os.getpid(),
        "nonce": nonce,
        "taken": taken,
        "heartbeat": time.time(),
        "monotonic": time.monotonic(),
    }


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the driver that wrote the lease seems to be alive, without waiting for a heartbeat.

    For a driver on another host the clocks of both hosts are compared, which may differ.
    """
    known = is_alive_here(holder)
    return _is_fresh(time.time() - float(holder.get("heartbeat", 0))) if known is None else known


def this_place() -> dict[str, str]:
    """Identifies the processes that see each other's ids and share one monotonic clock."""
    return {"host": socket.gethostname(), "boot": _boot_id(), "pids": _pid_namespace()}


def lease_content(file: Path) -> bytes | None:
    """The bytes of a lease's file; None if there is none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def parsed(content: bytes | None) -> dict[str, Any] | None:
    """The value of a lease's content, or None if it is incomplete or damaged."""
    try:
        value = json.loads(content) if content else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return value if all(_is_moment(value.get(name, 0)) for name in _NUMBERS) else None


def _is_moment(value: Any) -> bool:
    """Whether a value is a plausible time or process id; a damaged file may hold any."""
    return isinstance(value, int | float) and 0 <= value < 2**40


def is_alive_here(holder: dict[str, Any] | None) -> bool | None:
    """Whether the driver is alive, as far as this machine can tell.

    None if it runs elsewhere or the lease does not identify it: then its heartbeat must be watched.
    """
    if holder is None or any(holder.get(name) != value for name, value in this_place().items()):
        return None
    if not _process_exists(int(holder.get("pid", -1))):
        return False
    if "monotonic" not in holder:
        return None
    return _is_fresh(time.monotonic() - float(holder["monotonic"]))  # a clock that can't be set


def _is_fresh(age_seconds: float) -> bool:
    return age_seconds <= HEARTBEAT_SECONDS * MISSED_BEATS_ALLOWED


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""  # no Linux


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""  # no Linux


def _process_exists(pid: int) -> bool:
    if not 0 < pid < 2**31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def held_by(place: str, holder: dict[str, Any] | None) -> str:
    """The message to a second driver of the sweep at `place`."""
    return (
        f"{place}: {holder_text(holder)} is running this sweep{_since(holder)}. "
        f"Watch it with: python -m orchestrator.status {place}  "
        "Or wait until it ends, or give this one another --name."
    )


def holder_text(holder: dict[str, Any] | None) -> str:
    """The holder of a lease as text."""
    holder = holder or {}
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"


def _since(holder: dict[str, Any] | None) -> str:
    taken = (holder or {}).get("taken")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(taken)) if taken else ""
    return f" since {when}" if when else ""
