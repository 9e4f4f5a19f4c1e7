"""An S3 server for tests: moto's, with faults in front of it. It stands in for a real store, and is none.

What real stores do and this one does not: limits of requests a prefix, copies that take minutes, keys that expire.
"""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BUCKET = "bucket"


@dataclass
class Faults:
    """What goes wrong: each number is that of requests from one such fault to the next; 0: never."""

    refused: int = 0  # 503, and nothing is done
    lost: int = 0  # done, and answered with 503
    slow: int = 0  # answered late
    slow_s: float = 1.0
    lost_puts: int = 0  # the next so many files are written, and answered with 503
    met: Counter[str] = field(default_factory=Counter)


class FaultyStore:
    """A WSGI application that passes requests on to `store`, but for the faults."""

    def __init__(self, store: Callable[..., Iterable[bytes]]) -> None:
        self.store, self.faults = store, Faults()
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            faults = self.faults
            faults.met["requests"] += 1
            faults.met[environ["REQUEST_METHOD"]] += 1
            number = faults.met["requests"]
            due = {kind for kind in ("refused", "lost", "slow") if (n := getattr(faults, kind)) and number % n == 0}
            if environ["REQUEST_METHOD"] == "PUT" and faults.lost_puts:
                faults.lost_puts -= 1
                due.add("lost")
            faults.met.update(due)
        if "slow" in due:
            time.sleep(faults.slow_s)
        if "refused" in due:
            with contextlib.suppress(KeyError, ValueError):  # else the connection cannot be used again
                environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            return _refuse(environ, start_response)
        if "lost" in due:
            for _ in self.store(environ, lambda *_: None):
                pass
            return _refuse(environ, start_response)
        return self.store(environ, start_response)


def _refuse(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else SLOW_DOWN
    start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


@contextlib.contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """A store with an empty bucket; the environment of this process, and of those it starts, leads to it."""
    import fsspec
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    store = FaultyStore(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, store, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=60).close()
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(BUCKET)
        yield store
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.shutdown()
        thread.join(30)
