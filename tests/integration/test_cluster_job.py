"""`ray job submit -- python -m ray_app.iterate` on a real cluster: exit code, logs, run folder, moving metrics."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clusters import Cluster, started
from killing import ROW
from loop_runs import Loop, held, scripted

Make = Callable[..., Loop]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster")) as made:
        yield made


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


@pytest.mark.long
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


@pytest.mark.long
def test_a_relative_run_folder_would_be_lost_and_is_refused(cluster: Cluster, loop: Make) -> None:
    run = loop()
    assert cluster.submit(run, "ste-relative", "--runs", "runs").code != 0
    assert "exit code 2" in cluster.finished("ste-relative")
    assert "error: runs: runs is a relative path" in cluster.job("logs", "ste-relative").output


def test_without_its_token_the_cluster_answers_nobody(cluster: Cluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=30)
    assert refused.value.code in (401, 403)
