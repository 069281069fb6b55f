"""Which Ray a command joins or starts, looked at before Ray is asked, which waits for minutes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster.ray_internals import ray_folder, started_cluster
from orchestrator.cluster.socket_folder import folder_for_sockets
from trainables.errors import InputError

VARIABLE = "RAY_ADDRESS"
ANSWER_SECONDS = 5.0  # the most that a cluster may take for its first bytes
_SOCKET = "ray/session_2026-12-31_23-59-59_999999_4194304/sockets/dash_UsageStatsHead"
# HTTP/2: what a client sends first, with empty settings. A server's first frame is its settings.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_FRAME_HEAD, _KIND, _SETTINGS = 9, 3, 4
_START = "Start one with `ray start --head`, give HOST:PORT"


@dataclass(frozen=True)
class RayStart:
    """How `ray.init` is called: its address, and for a Ray of our own the folder for its files.

    `asked` names the option or the variable with which the user chose the address.
    """

    address: str | None
    asked: str = ""
    folder: Path | None = None


def ray_start(address: str | None, notify: Callable[[str], None]) -> RayStart:
    """What `--address` and RAY_ADDRESS ask for, seen to accept a connection within seconds.

    Without both it is the cluster of this machine's last `ray start`, else a Ray of our own. A Ray
    that another sweep has started for itself is never joined. Raises InputError if no cluster
    answers, or Ray's files have no place.
    """
    variable = os.environ.get(VARIABLE)
    by_variable = bool(variable) and address in (None, "auto")
    wanted = variable if by_variable else address
    asked = f"{VARIABLE}={wanted}" if by_variable else f"--address {wanted}"
    if wanted == "local":
        return _own_ray(notify)
    if wanted in (None, "auto"):
        return _started_on_this_machine(asked, is_wanted=wanted == "auto", notify=notify)
    assert wanted is not None
    reason = _unreachable(wanted)
    if reason:
        raise InputError(_no_cluster(asked, reason))
    return RayStart(wanted, asked)


def cluster_is_gone(address: str) -> bool:
    """Whether a cluster that was joined at HOST:PORT answers no more."""
    return bool(_unreachable(address))


def no_cluster(start: RayStart, reason: str) -> InputError:
    """The error for a cluster that has accepted a connection, and could not be joined."""
    return InputError(_no_cluster(start.asked, reason))


def _started_on_this_machine(
    asked: str, *, is_wanted: bool, notify: Callable[[str], None]
) -> RayStart:
    """Ray itself would take any Ray that runs here where `auto` is asked for."""
    found = started_cluster()
    file = ray_folder()[1] / "ray" / "ray_current_cluster"
    reason = _unreachable(found) if found else f"no `ray start` has left its address in {file}"
    if not reason:
        os.environ.pop(VARIABLE, None)  # "auto" at most, by which Ray would look on its own
        return RayStart(None, asked if is_wanted else f"`ray start` at {found}")
    if is_wanted:
        raise InputError(_no_cluster(asked, f"{found}: {reason}" if found else reason))
    if found:
        notify(f"The cluster of the last `ray start`, {found}, is gone ({reason}).")
    return _own_ray(notify)


def _own_ray(notify: Callable[[str], None]) -> RayStart:
    variable, usual = ray_folder()
    folder = folder_for_sockets(len(_SOCKET), first=usual)
    if folder is None:
        raise InputError(
            f"{variable}={usual}: Ray can't have its files and sockets there (the name is too "
            "long, or the folder can't be written), nor in /tmp. Set RAY_TMPDIR to a folder with "
            "a short name."
        )
    if folder == usual:
        return RayStart("local")
    folder /= "ray"
    notify(f"{variable} is too long a name for sockets, or can't be written: Ray uses {folder}.")
    return RayStart("local", folder=folder)


def _unreachable(address: str) -> str:
    """Why no server of Ray's protocol, gRPC, answers at HOST:PORT, or "" if one does.

    What is no such address is left to Ray.
    """
    host, colon, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not colon or not port.isdigit():
        return ""
    try:
        place = (host.strip("[]"), int(port))
        with socket.create_connection(place, timeout=ANSWER_SECONDS) as server:
            return "" if _uses_tls() or _greets(server) else "what listens there is no Ray"
    except TimeoutError:
        return f"no answer within {ANSWER_SECONDS:g} seconds"
    except OSError as error:
        return error.strerror or str(error)


def _greets(server: socket.socket) -> bool:
    server.sendall(_GREETING)
    head = server.recv(_FRAME_HEAD, socket.MSG_WAITALL)
    return len(head) == _FRAME_HEAD and head[_KIND] == _SETTINGS


def _uses_tls() -> bool:
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _no_cluster(asked: str, reason: str) -> str:
    if asked.startswith(VARIABLE):
        leave = f"unset {VARIABLE} or give --address local"
    else:
        leave = "leave --address out"
    said = f"{asked}: no Ray cluster answers there ({reason})"
    return f"{said}. {_START}, or {leave} to use this machine."
