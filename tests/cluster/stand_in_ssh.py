"""A substitute for sshd, ssh and rsync, for test hosts only: without encryption and keys.

Commands and files are sent over the hosts' own network to the given address.

    python stand_in_ssh.py serve ADDRESS     a host's server, in place of sshd
    ssh OPTIONS... USER@ADDRESS COMMAND...   (this file by another name)
    rsync OPTIONS... SOURCE USER@ADDRESS:TARGET, or the other way round

It implements only what Ray's cluster launcher uses, with the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

PORT = 22
OUT, ERROR, CODE = 1, 2, 3
_WITH_VALUE = ("-i", "-o", "-L", "-p", "-l", "-F")
_ALIVE = (  # as Ray sets for ssh: a host that does not answer for 3 times 5 seconds is lost
    (socket.TCP_KEEPIDLE, 5),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 3),
)
Frame = tuple[int, bytes]


def serve(address: str) -> None:
    """Serves every connection in its own thread; never returns."""
    with socket.create_server((address, PORT), backlog=64) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def run(address: str, command: str, given: bytes | None = None) -> tuple[int, bytes]:
    """Runs a command on a host; forwards its output and returns its exit code and output."""
    with socket.create_connection((address, PORT), timeout=10) as connection:
        connection.settimeout(None)
        for option, value in _ALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        asked = json.dumps({"command": command}).encode()
        connection.sendall(struct.pack("!I", len(asked)) + asked + (given or b""))
        connection.shutdown(socket.SHUT_WR)
        stream, output = connection.makefile("rb"), b""
        while True:
            kind, content = _frame(stream)
            if kind == CODE:
                return int(content), output
            output += content if kind == OUT else b""
            if given is None:
                target = sys.stdout.buffer if kind == OUT else sys.stderr.buffer
                target.write(content)
                target.flush()


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as stream:
        (size,) = struct.unpack("!I", stream.read(4))
        command = json.loads(stream.read(size))["command"]
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd="/root",
            env={"HOME": "/root", "USER": "root", "PATH": os.environ["PATH"], "TERM": "dumb"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin and process.stdout and process.stderr
        lock = threading.Lock()
        readers = [
            threading.Thread(target=_pass_on, args=(pipe, kind, connection, lock), daemon=True)
            for pipe, kind in ((process.stdout, OUT), (process.stderr, ERROR))
        ]
        for reader in readers:
            reader.start()
        _feed(stream, process.stdin)
        code = process.wait()
        for reader in readers:  # background processes of the command may keep the pipes open
            reader.join(timeout=0.5)
        with lock:
            _send(connection, CODE, str(code).encode())


def _feed(stream: IO[bytes], pipe: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        while content := stream.read(1 << 16):
            pipe.write(content)
        pipe.close()


def _pass_on(pipe: IO[bytes], kind: int, connection: socket.socket, lock: threading.Lock) -> None:
    while content := os.read(pipe.fileno(), 1 << 16):
        with lock:
            _send(connection, kind, content)


def _send(connection: socket.socket, kind: int, content: bytes) -> None:
    with contextlib.suppress(OSError):  # the client is gone; the command runs on, as with sshd
        connection.sendall(struct.pack("!BI", kind, len(content)) + content)


def _frame(stream: IO[bytes]) -> Frame:
    head = stream.read(5)
    if len(head) < 5:
        return CODE, b"255"  # the host was lost
    kind, size = struct.unpack("!BI", head)
    return kind, stream.read(size)


def ssh(arguments: list[str]) -> int:
    rest = _without_options(arguments)
    address = rest[0].rpartition("@")[2]
    try:
        return run(address, " ".join(rest[1:]))[0]
    except OSError as error:
        print(f"ssh: connect to host {address} port {PORT}: {error}", file=sys.stderr)
        return 255


def rsync(arguments: list[str]) -> int:
    """Copies a file or a folder to a host, or from one; excludes are tar's."""
    excludes, places, words = [], [], iter(arguments)
    for word in words:
        if word in ("--rsh", "--filter"):
            next(words)
        elif word == "--exclude":
            excludes.append(f"--exclude={next(words)}")
        elif not word.startswith("-"):
            places.append(word)
    source, target = places
    if ":" in source:
        return _download(*_place(source), Path(target).expanduser(), excludes)
    return _upload(source, *_place(target), excludes)


def _upload(source: str, address: str, target: str, excludes: list[str]) -> int:
    """Copies to a host by rsync's rules: `folder/` copies its content, `folder` the folder itself.

    A file may get another name.
    """
    local = Path(source).expanduser()
    if local.is_dir():
        start, name = (local, ".") if source.endswith("/") else (local.parent, local.name)
        unpack = f"mkdir -p {target} && tar -xf - -C {target}"
        return _piped(start, name, address, unpack, excludes)
    into = f"{target}/{shlex.quote(local.name)}"
    command = f"if [ -d {target} ]; then cat > {into}; else cat > {target}; fi"
    mode = f"chmod {local.stat().st_mode & 0o777:o} {target}"
    return run(address, f"{command}; {mode}", local.read_bytes())[0]


def _piped(start: Path, name: str, address: str, unpack: str, excludes: list[str]) -> int:
    packed = subprocess.run(
        ["tar", "-cf", "-", *excludes, "-C", str(start), name], capture_output=True, check=True
    )
    return run(address, unpack, packed.stdout)[0]


def _download(address: str, source: str, local: Path, excludes: list[str]) -> int:
    options = " ".join(shlex.quote(each) for each in excludes)
    command = f"tar -cf - {options} -C $(dirname {source}) $(basename {source})"
    code, packed = run(address, command, b"")
    subprocess.run(["tar", "-xf", "-", "-C", str(local.parent)], input=packed, check=True)
    return code


def _place(text: str) -> tuple[str, str]:
    """The address and the path; the path stays unquoted, so that ~ is the home on that host."""
    host, _, path = text.partition(":")
    return host.rpartition("@")[2], path


def _without_options(arguments: list[str]) -> list[str]:
    words = iter(arguments)
    for word in words:
        if word in _WITH_VALUE:
            next(words)
        elif not word.startswith("-"):
            return [word, *words]
    raise SystemExit("ssh: no host")


def main() -> int:
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "rsync":
        return rsync(arguments)
    if name == "ssh":
        return ssh(arguments)
    serve(arguments[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
