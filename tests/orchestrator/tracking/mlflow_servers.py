"""Servers for the tests of tracking: a real MLflow server, and a proxy that injects faults."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.error import URLError

FINE, SLOW, ERRORS, SILENT, LOST = "fine", "slow", "errors", "silent", "lost"
Weather = Literal["fine", "slow", "errors", "silent", "lost"]
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path, *, port: int | None = None) -> Iterator[str]:
    """A real MLflow server on this machine with its store in `folder`; killed at the end."""
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen(
            [*command, *store, "--artifacts-destination", str(folder / "artifacts")],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, **SETTINGS},
            start_new_session=True,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", seconds=180)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its child processes end slowly on SIGTERM
        server.wait(30)


class WeatherServer:
    """A proxy to another server whose faults are selected by `weather`.

    fine: forwards; slow: forwards after `seconds`; errors: answers 500 and forwards nothing;
    silent: never answers and forwards nothing; lost: forwards, but does not answer requests that
    create something. Without `upstream`, requests to forward are answered with 500. `requests`
    records all requests, as 'POST /api/2.0/mlflow/runs/create'.
    """

    def __init__(self, upstream: str = "", *, seconds: float = 5.0) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.seconds = seconds
        self.weather: Weather = "fine"
        self.requests: list[str] = []
        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> WeatherServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


def _handler(server: WeatherServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests.append(f"{self.command} {self.path.partition('?')[0]}")
            weather = server.weather
            if weather == SLOW:
                server.over.wait(server.seconds)
            if weather == SILENT:
                server.over.wait(60)
            if weather in (ERRORS, SILENT) or not server.upstream:
                self._answer(500, {}, b"the weather is bad")
                return
            status, headers, answer = self._passed_on(body)
            if weather == LOST and self.path.endswith("/create"):
                self.close_connection = True
                return
            self._answer(status, headers, answer)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

        def _passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            onward = http.client.HTTPConnection(server.upstream, timeout=60)
            kept = {key: value for key, value in self.headers.items() if key != "Host"}
            onward.request(self.command, self.path, body, kept)
            answer = onward.getresponse()
            content = answer.read()
            onward.close()
            return answer.status, {"Content-Type": answer.getheader("Content-Type", "")}, content

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the client is gone

    return Handler


def _wait_for(address: str, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=2).close()
        except (URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise TimeoutError(f"no server at {address} after {seconds:g} s")
