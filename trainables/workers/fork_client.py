"""Runs a Python command as a fork of the fork server, or as usual where there is no server.

    python -I -S fork_client.py SOCKET ARGUMENT ...      in place of: python ARGUMENT ...

It lives as long as the command, ends with its exit code, and when it is killed the server kills
the command. Both outlive the signals that ask the driver to end, which needs them for that. It
imports the standard library only, so that it starts within milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

DRIVERS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # they ask it to end in order
LENGTH_BYTES = 8
BEGUN = b"b"  # the server's first answer; its second is the exit code
EXIT_CODE_BYTES = 4


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, DRIVERS_SIGNALS)
    place, *arguments = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as server:
        if _has_begun(server, place, arguments):
            sys.exit(_exit_code(server))
    os.execv(sys.executable, [sys.executable, *arguments])


def _has_begun(server: socket.socket, place: str, arguments: list[str]) -> bool:
    """Whether a fork runs the command; waits for the server's imports."""
    asked = {"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
    request = json.dumps(asked).encode()
    try:
        server.connect(place)
        socket.send_fds(server, [len(request).to_bytes(LENGTH_BYTES, "big")], [0, 1, 2])
        server.sendall(request)
        return server.recv(len(BEGUN)) == BEGUN
    except OSError:
        return False


def _exit_code(server: socket.socket) -> int:
    """The command's; as a shell's for a signal, and 1 where the server has died before it."""
    try:
        code = int.from_bytes(server.recv(EXIT_CODE_BYTES) or b"\1", "big", signed=True)
    except OSError:
        return 1
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
