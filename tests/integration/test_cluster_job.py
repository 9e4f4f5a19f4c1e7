"""`ray job submit -- python -m ray_app.iterate` on a real cluster: exit code, logs, run folder, moving metrics."""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from killing import ROW
from loop_runs import ROOT, Ended, Loop, environment, held, scripted

BIN = Path(sys.executable).parent
Make = Callable[..., Loop]
OURS = ("EngineActor", "_WriterActor", "MapWorker")


@dataclass(frozen=True)
class Cluster:
    """One head node on this machine, with token authentication."""

    dashboard: str
    metrics: str
    variables: dict[str, str]
    code: Path
    head: int  # its process

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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    code = tmp_path_factory.mktemp("code")
    for folder in ("ray_app", "configs"):
        shutil.copytree(ROOT / folder, code / folder, ignore=shutil.ignore_patterns("__pycache__"))
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
        with open(code.parent / "head.log", "w") as log:
            head = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            made = Cluster(
                f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics", variables, code, head.pid
            )
            for url in (f"{made.dashboard}/api/version", made.metrics):
                wait_until_up(url, head, code.parent / "head.log")
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


def moved(cluster: Cluster, before: dict[str, float], names: set[str]) -> dict[str, float]:
    """Wait until all of these counters are larger than `before`; how much larger."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        now = cluster.counters()
        risen = {name: now.get(name, 0) - before.get(name, 0) for name in names}
        if all(value > 0 for value in risen.values()):
            return risen
        time.sleep(0.5)
    raise AssertionError(f"{names}: {before} → {now}")


def test_a_job_runs_the_loop(cluster: Cluster, loop: Make, model: str) -> None:
    """Its exit code, logs, results and metrics; then a job that fails, and one with bad input."""
    always_a = scripted(model, letter="A", unparsed=0.2, words=[40])
    run = loop(limit=16, generator=scripted(words=[40]), judge=always_a, judging={"samples": 6})
    submitted = cluster.submit(run, "ste-done")
    assert submitted.code == 0, submitted.output[-4000:] + submitted.errors[-2000:]
    logs = cluster.job("logs", "ste-done").output
    assert "using the Ray cluster at" in logs
    assert f"run folder: {run.run}" in logs
    assert "succeeded" in cluster.job("status", "ste-done").output.lower()
    assert len(run.rows("pairs")) == 16
    assert (run.run / "iter_00/evaluation/validation/stage.json").exists()


def test_metrics_move_and_a_failure_has_exit_code_1(cluster: Cluster, loop: Make, model: str, tmp_path: Path) -> None:
    """A judge that always says A keeps judgments, and leaves nothing after balancing: exit 1, with its numbers."""
    go = tmp_path / "go"  # until then one row is not answered, so that the job lives while its counters are read
    held_row = {"hold": "a cat who is afraid of snow", "until": str(go)}
    run = loop(
        iterations=1,
        limit=16,
        generator=scripted(words=[40]),
        judge=scripted(model, letter="A", unparsed=0.3, **held_row),
        judging={"samples": 6},
        evaluation={"validation": None, "heldout": False},
    )
    before = cluster.counters()
    assert cluster.submit(run, "ste-empty", how=("--no-wait",)).code == 0
    risen = moved(cluster, before, {"rows", "completion_tokens", "samples", "kept", "unparsed"})
    go.touch()
    assert risen["kept"] <= 16
    assert "exit code 1" in cluster.finished("ste-empty")
    logs = cluster.job("logs", "ste-empty").output
    judged = run.rows("iter_01/judgments")
    numbers = f"32 (pair, order) judged with {len(judged)} samples"
    assert f"failed: the training set is empty: {numbers}" in logs, logs[-3000:]
    assert "kept before balancing: 16 A" in logs


def test_a_stopped_job_says_so_leaves_nothing_and_continues(cluster: Cluster, loop: Make) -> None:
    """`ray job stop` gives three seconds: one line, the lease is given back, and our actors are gone."""
    run = loop(limit=16, shards={"max_rows": 4, "max_seconds": 1}, generator=scripted(), judge=scripted())
    assert cluster.submit(run, "ste-held", *held("generator", ROW), how=("--no-wait",)).code == 0
    deadline = time.monotonic() + 400
    while not any((run.run / "pairs").glob("shard-*.parquet")):
        assert time.monotonic() < deadline, cluster.job("logs", "ste-held").output
        time.sleep(0.1)
    assert cluster.ours(), "its engine and writer are at work"
    assert cluster.job("stop", "ste-held").code == 0
    assert "stopped" in cluster.finished("ste-held").lower()
    logs = cluster.job("logs", "ste-held").output
    assert logs.splitlines().count("stopped; the same command continues this run") == 1, logs[-3000:]
    assert "Traceback" not in logs
    assert not (run.run / "lease.json").exists()
    until = time.monotonic() + 60
    while cluster.ours() and time.monotonic() < until:
        time.sleep(0.1)
    assert cluster.ours() == []
    kept = run.files("pairs/shard-*.parquet")
    again = cluster.submit(run, "ste-again")
    assert again.code == 0, again.output[-4000:]
    assert kept.items() <= run.files("pairs/shard-*.parquet").items()


def test_bad_input_has_exit_code_2(cluster: Cluster, loop: Make) -> None:
    run = loop()
    submitted = cluster.submit(run, "ste-bad", "--instructions.source", "/nowhere/at/all.jsonl")
    assert submitted.code != 0
    assert "exit code 2" in cluster.finished("ste-bad")
    logs = cluster.job("logs", "ste-bad").output
    errors = [line for line in logs.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, logs[-3000:]
    assert "/nowhere/at/all.jsonl" in errors[0]
    assert "Traceback" not in logs
    assert not run.run.exists()


def test_a_relative_run_folder_would_be_lost_and_is_refused(cluster: Cluster, loop: Make) -> None:
    run = loop()
    assert cluster.submit(run, "ste-relative", "--runs", "runs").code != 0
    assert "exit code 2" in cluster.finished("ste-relative")
    assert "error: runs: runs is a relative path" in cluster.job("logs", "ste-relative").output


def test_without_its_token_the_cluster_answers_nobody(cluster: Cluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=30)
    assert refused.value.code in (401, 403)
