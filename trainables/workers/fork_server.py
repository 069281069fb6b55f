"""Fork server: imports what trials need once, and runs Python commands as forks of itself.

    python -m trainables.workers.fork_server SOCKET

A fork starts within milliseconds, with the arguments, environment, working directory and standard
streams of its client (`fork_client.py`), and shares the memory of the imports. The parent of a
fork must have one thread and no GPU context, so the server computes nothing, and there is none on
a machine with a GPU.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.workers.fork_client import (
    BEGUN,
    DRIVERS_SIGNALS,
    EXIT_CODE_BYTES,
    LENGTH_BYTES,
)

STANDARD_STREAMS = 3
REQUEST_SECONDS = 10.0  # at most; a client sends its request at once
_GPU_DRIVERS = ("/proc/driver/nvidia", "/dev/kfd")


@dataclass(frozen=True)
class Request:
    """A Python command: `arguments` as after `python`, and what its process has."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    streams: tuple[int, ...] = ()


def can_fork() -> bool:
    """Whether processes of this machine may be forks: it is Linux, and no GPU is here."""
    return sys.platform == "linux" and not any(Path(place).exists() for place in _GPU_DRIVERS)


def main() -> None:
    """Listens at once, so that clients can wait; ends with its standard input."""
    signal.pthread_sigmask(signal.SIG_BLOCK, DRIVERS_SIGNALS)
    place = Path(sys.argv[1])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        _import_all()
        request = ForkServer(listener).serve()
    if request is not None:
        _run(request)
    else:
        shutil.rmtree(place.parent, ignore_errors=True)


class ForkServer:
    """Forks for each request; a fork lives no longer than its client."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._processes: dict[int, tuple[int, socket.socket]] = {}  # by the fork's descriptor

    def serve(self) -> Request | None:
        """Returns None when standard input ends; in a fork, the request that it is to run."""
        self._selector.register(0, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fd == 0:
                    return None
                if key.fileobj is self._listener:
                    request = self._accept()
                    if request is not None:
                        return request
                elif key.fd in self._processes:
                    self._report_end(key.fd)
                else:
                    self._kill(key.data)

    def _accept(self) -> Request | None:
        """Forks for the next client; the request in the fork, None in this process."""
        client, _ = self._listener.accept()
        with contextlib.suppress(OSError, ValueError):
            request = _received(client)
            process = os.fork()
            if process == 0:
                self._close_all(client)
                return request
            for stream in request.streams:
                os.close(stream)
            self._watch(process, client)
            with contextlib.suppress(OSError):  # a client that is gone ends its command below
                client.sendall(BEGUN)
            return None
        client.close()  # it is gone, or its request is no request
        return None

    def _watch(self, process: int, client: socket.socket) -> None:
        ended = os.pidfd_open(process)
        self._processes[ended] = (process, client)
        self._selector.register(ended, selectors.EVENT_READ)
        self._selector.register(client, selectors.EVENT_READ, data=process)

    def _report_end(self, ended: int) -> None:
        """Sends its client the exit code of a fork that has ended."""
        process, client = self._processes.pop(ended)
        self._selector.unregister(ended)
        os.close(ended)
        with contextlib.suppress(KeyError):
            self._selector.unregister(client)
        _, status = os.waitpid(process, 0)
        with contextlib.suppress(OSError):
            client.sendall(
                os.waitstatus_to_exitcode(status).to_bytes(EXIT_CODE_BYTES, "big", signed=True)
            )
        client.close()

    def _kill(self, process: int) -> None:
        """Kills the fork of a client that is gone, unless it has just ended by itself."""
        for forked, client in self._processes.values():
            if forked == process:
                os.kill(process, signal.SIGKILL)
                self._selector.unregister(client)

    def _close_all(self, client: socket.socket) -> None:
        """In a fork: what belongs to the server and to other forks is closed."""
        self._selector.close()
        self._listener.close()
        client.close()
        for ended, (_, other) in self._processes.items():
            os.close(ended)
            other.close()


def _import_all() -> None:
    """Imports what trials and predictions compute with; the garbage collector skips it."""
    from trainables.models.base import quiet, warm_imports

    warm_imports()
    quiet()
    import trainables.data.trial_data
    import trainables.resources.system_metrics
    import trainables.training.loop
    import trainables.training.progress  # noqa: F401

    gc.collect()
    gc.freeze()


def _received(client: socket.socket) -> Request:
    client.settimeout(REQUEST_SECONDS)
    space = socket.CMSG_LEN(STANDARD_STREAMS * array.array("i").itemsize)
    length, sent, _, _ = client.recvmsg(LENGTH_BYTES, space)
    streams = array.array("i")
    for _, _, data in sent:
        streams.frombytes(data)
    asked: dict[str, Any] = json.loads(_exactly(client, int.from_bytes(length, "big")))
    return Request(**asked, streams=tuple(streams))


def _exactly(client: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = client.recv(count - len(parts))
        if not part:
            raise ValueError("a request that ends too soon")
        parts += part
    return bytes(parts)


def _run(request: Request) -> None:
    """Runs the command as if Python had been started for it."""
    os.setsid()
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    if request.arguments[0] == "-m":
        sys.argv = request.arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = request.arguments
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
