"""A real S3 server on loopback for tests: moto's server, with one request at a time.

S3 checks a condition and writes the object in one step. moto honours If-None-Match and If-Match,
but checks and writes in two steps, between which another thread may write.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

BUCKET = "sweeps"


@contextmanager
def s3_server(*, busy_seconds: float = 0) -> Iterator[Mapping[str, str]]:
    """Runs a server with one bucket; yields the environment variables that select it.

    For `busy_seconds` after its start it answers every request with 503 Slow Down.
    """
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = _OneAtATime()
    server = make_server(
        "127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ACCESS_KEY_ID": "a-test",
        "AWS_SECRET_ACCESS_KEY": "of-no-account",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
    }
    try:
        _make_bucket(environment)
        application.busy_until = time.monotonic() + busy_seconds
        yield environment
    finally:
        server.shutdown()
        thread.join()


def new_place() -> str:
    """A new URL in the bucket, which no other test uses."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"


class _OneAtATime:
    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.busy_until = 0.0
        self._application = DomainDispatcherApplication(create_backend_app)
        self._alone = threading.Lock()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if time.monotonic() < self.busy_until:
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code></Error>"]
        with self._alone:
            return list(self._application(environ, start_response))


def _make_bucket(environment: Mapping[str, str]) -> None:
    import boto3  # type: ignore[import-untyped]

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    )
    client.create_bucket(Bucket=BUCKET)
