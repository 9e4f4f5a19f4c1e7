"""Two hosts on one machine: namespaces of network and processes with a cable between them, and a Ray node in each.
Linux, as root.

A node has the processes, the address and the network of its own that a host has; files and processors are shared. A
driver finds the node of its host by looking for Ray's processes, so it must not see those of the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from loop_runs import ROOT, Loop, environment

RAY, PORT = Path(sys.executable).parent / "ray", 6379
FREE = "import json, sys, ray; ray.init(sys.argv[1]); print(json.dumps(ray.available_resources()))"


def why_not() -> str | None:
    """What this machine lacks for it."""
    for tool, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux")):
        if shutil.which(tool) is None:
            return f"no `{tool}` command (Debian: {package})"
    name = f"ste-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces cannot be made here: {tried.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


@dataclass
class Host:
    """A network namespace and what runs in it."""

    name: str
    address: str
    variables: Mapping[str, str]
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    first: int = 0  # its first process, with which all others end

    def boots(self) -> None:
        """Its namespace of processes, which lasts as long as the first of them."""
        # A shell, for it takes note of orphans that end: Ray's agents would take their raylet, a zombie, for alive.
        alone = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", "while sleep 1; do :; done"]
        self.nodes.append(subprocess.Popen(["ip", "netns", "exec", self.name, *alone], start_new_session=True))
        below = psutil.Process(self.nodes[-1].pid)
        until(lambda: any(child.name() == "sh" for child in below.children()))
        self.first = below.children()[0].pid

    @property
    def prefix(self) -> list[str]:
        """Of a command that is to run on this host."""
        return ["nsenter", "--target", str(self.first), "--net", "--pid", "--mount", f"--wd={ROOT}"]

    def starts_ray(self, scratch: str, head: str | None, cpus: int) -> None:
        """A Ray node; `head`: the address of the one it joins, None for the head itself."""
        first = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        command = [str(RAY), "start", "--block", f"--node-ip-address={self.address}", f"--num-cpus={cpus}"]
        command += first if head is None else [f"--address={head}:{PORT}"]
        # A folder of its own: in it Ray keeps the address of the node that its drivers are on.
        command += [
            f"--temp-dir={scratch}/{self.name[-7:]}",
            "--object-store-memory=100000000",
            "--disable-usage-stats",
        ]
        with open(f"{scratch}/{self.name}.log", "w") as log:
            self.nodes.append(
                subprocess.Popen(
                    [*self.prefix, *command], env=self.variables, stdout=log, stderr=log, start_new_session=True
                )
            )

    def processes(self) -> list[int]:
        """The ids of all its processes."""
        listed = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        return [int(line) for line in listed.stdout.split()]

    def idle(self) -> bool:
        """Whether nothing runs on it but what makes it a host."""
        names = set()
        for pid in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                names.add(psutil.Process(pid).name())
        return names <= {"unshare", "sh", "sleep"}

    def dies(self) -> None:
        """All its processes, at once."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for node in self.nodes:
            node.wait(60)

    def free(self) -> dict[str, float]:
        """What Ray has left of the cluster's resources. Of the head."""
        told = subprocess.run(
            [*self.prefix, sys.executable, "-c", FREE, f"{self.address}:{PORT}"],
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
        return found


@dataclass
class Hosts:
    """A cluster of two."""

    head: Host
    other: Host
    variables: dict[str, str]

    @property
    def address(self) -> str:
        """For drivers."""
        return f"{self.head.address}:{PORT}"

    def cut(self) -> None:
        """Pull the cable."""
        _ip("-n", self.other.name, "link", "set", "cable", "down")

    @contextlib.contextmanager
    def cut_for(self, seconds: float) -> Iterator[None]:
        """The cable is out for so long; the block runs at the beginning."""
        self.cut()
        try:
            yield
            time.sleep(seconds)
        finally:
            _ip("-n", self.other.name, "link", "set", "cable", "up")

    def loop(self, folder: Path, **settings: Any) -> Loop:
        """A run on this cluster, whose driver is on the head."""
        made = Loop(folder, {**settings, "ray": {"address": self.address}})
        made.prefix = self.head.prefix
        return made


@contextlib.contextmanager
def two_hosts(cpus: tuple[int, int]) -> Iterator[Hosts]:
    """Two hosts with so many CPUs (of Ray's), joined by a cable; the first is the cluster's head."""
    tag = f"{os.getpid() % 100_000}"
    variables = {
        **environment(),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_process_group_cleanup_enabled": "1",
    }
    hosts = [Host(f"ste-{letter}-{tag}", f"10.77.0.{i}", variables) for i, letter in enumerate("ab", 1)]
    # Not pytest's folder: the path of a socket in it has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ste-", ignore_cleanup_errors=True) as scratch:
        try:
            for host in hosts:
                _ip("netns", "add", host.name)
                _ip("-n", host.name, "link", "set", "lo", "up")
            pair = ["name", "cable", "netns", hosts[0].name, "type", "veth"]
            _ip("link", "add", *pair, "peer", "name", "cable", "netns", hosts[1].name)
            for host in hosts:
                host.boots()
                _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "cable")
                _ip("-n", host.name, "link", "set", "cable", "up")
            hosts[0].starts_ray(scratch, None, cpus[0])
            made = Hosts(*hosts, variables)
            until(lambda: _counted(hosts[0]) >= cpus[0])
            hosts[1].starts_ray(scratch, hosts[0].address, cpus[1])
            until(lambda: _counted(hosts[0]) >= sum(cpus))
            yield made
        finally:
            for host in hosts:
                host.dies()
                subprocess.run(["ip", "netns", "delete", host.name], capture_output=True, check=False)


def _counted(host: Host) -> float:
    """CPUs of the cluster; 0 as long as it does not answer."""
    try:
        return host.free().get("CPU", 0.0)
    except subprocess.SubprocessError:
        return 0.0


def until(reached: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something; `seconds`: a generous limit."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not happen on the two hosts"
        time.sleep(0.5)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
