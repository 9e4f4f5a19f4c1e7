"""kill -9 of `judge` with votes: results are durable as they come, and nothing in a closed shard is judged again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from loop_runs import DEMO, ROOT, end_session, environment, held

QUIET = ["--no-ray.dashboard", "--ray.object_store_gib", "0.1"]
pytestmark = pytest.mark.timeout(1800)


class Judging:
    """One `judge` command, its output file, and the folder of its votes."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.output = folder / "verdicts.jsonl"
        self.votes = folder / "verdicts.jsonl.parts"
        command = [sys.executable, "-m", "ray_app.judge", *options, *QUIET, "--output", self.output]
        self.command = [str(part) for part in command]
        self.log = folder / "log"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [*self.command, *options], cwd=ROOT, env=environment(), stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def killed_with(self, shards: int, *options: str) -> None:
        """Start, and kill -9 as soon as so many shards are closed. Fails when the command ends first."""
        process = self.start(*options)
        deadline = time.monotonic() + 400
        while len(self.shards()) < shards:
            assert process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        assert not self.output.exists(), "the verdict file appears whole, at the end"

    def finished(self) -> None:
        process = self.start()
        assert process.wait(600) == 0, self.log.read_text()[-3000:]

    def shards(self) -> dict[str, str]:
        """{closed shard: content hash}."""
        files = self.votes.glob("shard-*.parquet")
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def rows(self) -> list[dict[str, Any]]:
        return [row for file in sorted(self.votes.glob("shard-*.parquet")) for row in pq.read_table(file).to_pylist()]

    def stop(self) -> None:
        for process in self.processes:
            end_session(process.pid)


def killed_and_continued(judging: Judging, ids: list[str], k: int, kills: int, *holding: str) -> None:
    """Kill after one shard, again after one more, …, go on to the end: whole, once, and closed shards untouched.
    `holding`: options that keep the command from its end while it is to be killed.
    """
    closed: dict[str, str] = {}
    for _ in range(kills):
        judging.killed_with(len(closed) + 1, *holding)
        found = judging.shards()
        assert closed.items() <= found.items()
        closed = found
    judging.finished()
    assert closed.items() <= judging.shards().items()
    rows = judging.rows()
    drawn = Counter((row["id"], row["order"], row["sample"]) for row in rows)
    assert max(drawn.values()) == 1
    verdicts = [json.loads(line) for line in judging.output.read_text().splitlines()]
    assert [verdict["id"] for verdict in verdicts] == ids
    units = defaultdict(list)
    for row in rows:
        units[row["id"], row["order"]].append(row)
    assert set(units) == {(identity, order) for identity in ids for order in ("ab", "ba")}
    for unit in units.values():
        assert sorted(row["sample"] for row in unit) == list(range(len(unit)))
        letters = [row["verdict"] for row in unit]
        lead = abs(letters.count("A") - letters.count("B"))
        assert len(unit) == k or lead > k - len(unit), "all votes, or a settled verdict"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Judging]]:
    made: list[Judging] = []
    yield made
    for judging in made:
        judging.stop()


@pytest.mark.matrix
def test_eight_votes_of_the_real_model(tmp_path: Path, model: str, started: list[Judging]) -> None:
    engine = ["--engine.device", "cpu", "--engine.max_model_len", 1024, "--engine.max_num_seqs", 32]
    engine += ["--engine.cpu_threads", 1]
    prompt = ["--prompt", "judge_pairwise_small", "--generation", json.dumps({"max_tokens": 16, "top_p": 1.0})]
    source = DEMO / "test.jsonl"
    options = ["--model", model, *engine, *prompt, "--input", source, "--limit", 24, "--votes", 8]
    judging = Judging(tmp_path, *options)
    started.append(judging)
    ids = [json.loads(line)["id"] for line in source.read_text().splitlines()][:24]
    killed_and_continued(judging, ids, 8, 1)


@pytest.mark.parametrize(("pairs", "kills"), [(150, 1), pytest.param(1000, 2, marks=pytest.mark.matrix)])
def test_thirty_two_votes(tmp_path: Path, started: list[Judging], pairs: int, kills: int) -> None:
    rows = [
        {"id": f"r{i}", "instruction": f"number {i}", "response_a": f"GOOD {i}", "response_b": f"other {i}"}
        for i in range(pairs)
    ]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = {"p": [0.95, 0.5, 0.2], "unparsed": 0.1, "delay_s": 0.02}
    engine = ["--model", "scripted", "--engine.kind", "scripted", "--engine.script", json.dumps(script)]
    judging = Judging(tmp_path, *engine, "--engine.max_num_seqs", 16, "--input", source, "--votes", 32)
    started.append(judging)
    ids = [str(row["id"]) for row in rows]
    killed_and_continued(judging, ids, 32, kills, *held("engine", f"number {pairs - 1}"))
