"""ForkedPython: processes of this machine that start with everything imported.

Importing what trials compute with takes seconds of CPU, which hosts and the simulator would each
pay at the same moment. The fork server (`trainables.workers.fork_server`) pays them once, while
the driver plans and Ray starts.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestrator.cluster.socket_folder import folder_for_sockets
from orchestrator.shipped_files import ROOT
from trainables.workers import fork_client
from trainables.workers.fork_server import can_fork

_SERVER = "trainables.workers.fork_server"
_PREFIX, _SOCKET = "sweep-fork-", "socket"


class ForkedPython:
    """Holds the fork server inside its `with`; the server ends with this process in any case.

    `cpus` is what a host asks Ray for, None for its default: forks compute with as many threads
    as Ray gives to a host of that size, a number that is fixed before the imports. Unless it is
    `wanted`, and where nothing can be forked or no folder is short enough for its socket, there is
    no server and `python` is Python.
    """

    def __init__(self, *, cpus: float | None, wanted: bool = True) -> None:
        self._wanted = wanted and can_fork()
        self._threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, math.floor(cpus or 1)))
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ForkedPython:
        """Starts the server and does not wait for its imports; commands wait for them."""
        place = folder_for_sockets(len(f"{_PREFIX}12345678/{_SOCKET}"))
        if self._wanted and place is not None:
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))  # of this user alone
            self._process = subprocess.Popen(
                [sys.executable, "-m", _SERVER, str(self._socket)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": self._threads},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the driver's to answer
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the server; what it has forked goes on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def python(self) -> tuple[str, ...]:
        """The command that stands for `python`, in front of a script or of `-m MODULE`."""
        if self._process is None:
            return (sys.executable,)
        return (sys.executable, "-I", "-S", str(fork_client.__file__), str(self._socket))

    @property
    def _socket(self) -> Path:
        assert self._folder is not None
        return self._folder / _SOCKET
