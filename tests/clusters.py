"""A Ray cluster of one node for tests, as `ray start` makes it, with token authentication."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from loop_runs import ROOT, Ended, Loop, environment

BIN = Path(sys.executable).parent
OURS = ("EngineActor", "_WriterActor", "MapWorker")


@dataclass(frozen=True)
class Cluster:
    """One head node on this machine, with token authentication."""

    dashboard: str
    metrics: str
    variables: dict[str, str]
    code: Path
    head: int  # its process
    scratch: Path  # its temporary folder
    address: str  # for drivers

    def submit(self, loop: Loop, name: str, *options: str, how: tuple[str, ...] = ()) -> Ended:
        """The README's command; waits for the job's end unless `how` says otherwise."""
        entry = ["python", "-m", "ray_app.iterate", "--config", str(loop.config), *options]
        command = ("submit", "--submission-id", name, "--working-dir", str(self.code), *how, "--", *entry)
        for _ in range(30):
            ended = self.job(*command)
            # On a busy machine the node's job agent is ready some time after the dashboard.
            if "No available agent" not in ended.output + ended.errors:
                break
            time.sleep(2)
        return ended

    def finished(self, name: str) -> str:
        """What `ray job status` says in the end."""
        for _ in range(300):
            said = self.job("status", name).output
            if re.search("succeeded|failed|stopped", said, re.IGNORECASE):
                return said
            time.sleep(1)
        raise AssertionError(said)

    def job(self, verb: str, *arguments: str) -> Ended:
        command = [str(BIN / "ray"), "job", verb, "--address", self.dashboard, *arguments]
        done = subprocess.run(
            command, env=self.variables, cwd=self.code, capture_output=True, text=True, timeout=300, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def ours(self) -> list[str]:
        """Processes of our actors on this cluster: Ray names them after their class."""
        found = []
        for process in psutil.Process(self.head).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found += [name for name in OURS if name in " ".join(process.cmdline()).partition("ray::")[2]]
        return found

    def about(self, name: str) -> dict[str, Any]:
        """What the dashboard knows of a job."""
        token = {"Authorization": f"Bearer {self.variables['RAY_AUTH_TOKEN']}"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.dashboard}/api/jobs/{name}", headers=token), timeout=30
        ) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def counters(self) -> dict[str, float]:
        """Sums of our counters at the metrics port, over all tags."""
        with urllib.request.urlopen(self.metrics, timeout=30) as answer:
            text = answer.read().decode()
        sums: dict[str, float] = {}
        for name, value in re.findall(r"^ray_ste_(\w+)_total\{[^}]*\} (\S+)$", text, re.MULTILINE):
            sums[name] = sums.get(name, 0) + float(value)
        return sums


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    """A cluster whose code and log lie in `folder`; it is gone when the block ends."""
    code = folder / "code"
    for part in ("ray_app", "configs"):
        shutil.copytree(ROOT / part, code / part, ignore=shutil.ignore_patterns("__pycache__"))
    port, dashboard, metrics, agent, clients = free_ports(5)
    variables = {
        **environment(),
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_metrics_report_interval_ms": "1000",
    }
    # Not pytest's folder: the path of a socket in it has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ste-", ignore_cleanup_errors=True) as scratch:
        command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4", f"--port={port}"]
        command += [f"--dashboard-port={dashboard}", f"--metrics-export-port={metrics}", f"--temp-dir={scratch}"]
        # Their defaults are fixed numbers, which any other Ray on this machine may hold; then no job can be submitted.
        command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={clients}"]
        command += ["--object-store-memory=100000000", "--disable-usage-stats"]
        with open(folder / "head.log", "w") as log:
            head = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            made = Cluster(
                f"http://127.0.0.1:{dashboard}",
                f"http://127.0.0.1:{metrics}/metrics",
                variables,
                code,
                head.pid,
                Path(scratch),
                f"127.0.0.1:{port}",
            )
            for url in (f"{made.dashboard}/api/version", made.metrics):
                wait_until_up(url, head, folder / "head.log")
            yield made
        finally:
            stop(head, scratch)


def wait_until_up(url: str, head: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert head.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=30)
            return
        except urllib.error.HTTPError:
            return  # it is up, and wants its token
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def stop(head: subprocess.Popen[bytes], scratch: str) -> None:
    """End this cluster's processes and no other's: they are children of its head, or name its folder."""
    doomed = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(scratch in part for part in process.cmdline()):
                doomed.append(process)
    for process in set(doomed):
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(set(doomed), timeout=30)
