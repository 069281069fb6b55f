"""A hub on 127.0.0.1 that speaks the protocols of snapshot_download and of `datasets`, and records
the requests."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running hub with one model, or one data set; `asked` contains every request as 'GET /path',
    in order.

    If `token` is set, requests without it are refused.
    """

    name: str
    folder: Path
    token: str = ""
    kind: str = "models"  # or "datasets"
    url: str = ""
    seconds: float = 0.0  # delay of each download
    failures: int = 0  # number of the next downloads that are answered with an error
    asked: list[str] = field(default_factory=list)

    def gets(self, file: str) -> int:
        """The number of downloads of a file."""
        return sum(line.startswith("GET ") and line.endswith(f"/{file}") for line in self.asked)


@contextmanager
def hub_server(
    folder: Path, *, name: str = "owner/tiny", token: str = "", kind: str = "models"
) -> Iterator[Hub]:
    """Serves the model or data set in `folder` as `name` at commit COMMIT."""
    hub = Hub(name, folder, token, kind)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing: `asked` contains the requests."""

        def _answer(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._send(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
            elif path.startswith(f"/api/{hub.kind}/{hub.name}"):
                self._send(200, json.dumps(_information(hub, path)).encode(), {})
            elif path.startswith(f"{_place(hub)}/resolve/{COMMIT}/"):
                self._send_file(hub.folder / path.rpartition("/")[2])
            else:
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

        def _send_file(self, file: Path) -> None:
            if not file.is_file():
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                return
            if self.command == "GET":
                time.sleep(hub.seconds)
                if hub.failures > 0:
                    hub.failures -= 1
                    self._send(403, b"{}", {})
                    return
            content = file.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._send(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


def _place(hub: Hub) -> str:
    return f"/{hub.name}" if hub.kind == "models" else f"/{hub.kind}/{hub.name}"


def _information(hub: Hub, path: str) -> object:
    names = sorted(file.name for file in hub.folder.iterdir() if file.is_file())
    if "/tree/" in path:
        sizes = {name: (hub.folder / name).stat().st_size for name in names}
        return [
            {"type": "file", "path": name, "size": size, "oid": "0" * 40}
            for name, size in sizes.items()
        ]
    return {
        "id": hub.name,
        "modelId": hub.name,
        "sha": COMMIT,
        "private": False,
        "siblings": [{"rfilename": name} for name in names],
    }
