"""`judge --serve` as its user runs it, and a client of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from commands import QUIET, ROOT
from loop_runs import end_session, environment


class Service:
    """A `judge --serve` process, and a client of it."""

    def __init__(self, folder: Path, *options: object, port: int | None = None) -> None:
        self.port = port or free_port()
        line = [sys.executable, "-m", "ray_app.judge", "--serve", "--http.port", self.port, *QUIET, *options]
        folder.mkdir(exist_ok=True)
        self.log = folder / "serve.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in line],
                cwd=ROOT,
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120)

    def ready(self) -> Service:
        deadline = time.monotonic() + 500
        while " is served at http://127.0.0.1:" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)
        return self

    def ended(self) -> tuple[int, str]:
        """Exit code and log of a command that comes to its end by itself."""
        return self.process.wait(300), self.log.read_text()

    def sends(self, body: bytes, length: int | None = None) -> socket.socket:
        """A connection on which a request has begun, whose body is to have `length` bytes."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        head = f"POST /judge HTTP/1.1\r\nHost: test\r\nContent-Length: {length or len(body)}\r\n\r\n"
        made.sendall(head.encode() + body)
        return made

    def judge(self, **body: Any) -> httpx.Response:
        return self.client.post("/judge", json=body)

    def metric(self, name: str) -> float:
        found = [line for line in self.client.get("/metrics").text.splitlines() if line.startswith(name + " ")]
        return float(found[0].split()[1]) if found else 0.0

    def stop(self) -> None:
        end_session(self.process.pid)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def scripted(**script: Any) -> list[str]:
    return ["--model", "scripted", "--engine.kind", "scripted", "--engine.script", json.dumps(script)]
