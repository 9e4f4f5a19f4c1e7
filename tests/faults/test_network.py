"""The network between two hosts is cut, for some seconds or for good, and the host of the driver goes: a host here is a
network namespace with a Ray node of its own (`hosts.py`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Hosts, two_hosts, until, why_not
from killing import MODIFY
from loop_runs import Loop, scripted

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]
CPUS = (4, 3)  # room for one engine on each host, and for what feeds them
ENGINE = 2.5
ROWS = 24
LOST = "its rows are asked again"  # of an engine, in the log
SOME_ROWS = f"{MODIFY}.*(bakery|snow|freeze|water|poem|list)"


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    if lacks := why_not():
        pytest.skip(lacks)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    with two_hosts(CPUS) as made:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.setenv(name, made.variables[name])
        yield made


def two_engines(hosts: Hosts, folder: Path, until_file: Path) -> Loop:
    """Pairs by two engines, one a host, some of whose rows wait for a file."""
    held = {"hold": SOME_ROWS, "until": str(until_file)}
    engines = {**scripted(**held), "cpus": ENGINE, "replicas": 2, "max_num_seqs": 8}
    return hosts.loop(
        folder,
        limit=ROWS,
        shards={"max_rows": 4, "max_seconds": 1},
        generator=engines,
        judge={**scripted(), "cpus": ENGINE},
        pools={"side_by_side": "never"},
    )


def closed_pairs(run: Loop) -> bool:
    return any((run.run / "pairs").glob("shard-*.parquet"))


def each_pair_once(run: Loop) -> bool:
    """All that was asked is answered, and nothing twice, nothing left out."""
    ids = [row["instruction_id"] for row in run.rows("pairs")]
    lost = run.rows("pairs", "quarantine")
    return sorted(ids) == sorted({row["instruction_id"] for row in run.rows("instructions")}) and not lost


def test_engines_that_the_network_takes_away_lose_no_row(hosts: Hosts, tmp_path: Path) -> None:
    """For good: the stage goes on with the engine that is left; the host that is cut off ends its own engine."""
    run, go = two_engines(hosts, tmp_path, tmp_path / "go"), tmp_path / "go"
    process = run.start()
    run.wait_for(process, lambda: closed_pairs(run))
    hosts.cut()
    go.touch()
    ended = run.ended(process)
    assert ended.code == 0, ended.errors[-4000:]
    assert LOST in ended.errors
    assert each_pair_once(run)
    until(lambda: hosts.head.free().get("CPU") == CPUS[0], 120)
    until(hosts.other.idle, 240)


def test_a_network_that_is_gone_for_seconds_costs_nothing(hosts: Hosts, tmp_path: Path) -> None:
    """Answers that are ready meanwhile arrive when it is back; no engine is taken for lost."""
    run, go = two_engines(hosts, tmp_path, tmp_path / "go"), tmp_path / "go"
    process = run.start()
    run.wait_for(process, lambda: closed_pairs(run))
    with hosts.cut_for(6):
        go.touch()
    ended = run.ended(process)
    assert ended.code == 0, ended.errors[-4000:]
    assert LOST not in ended.errors
    assert each_pair_once(run)
    until(lambda: hosts.head.free().get("CPU") == sum(CPUS), 120)


def test_the_host_of_the_driver_goes_and_the_same_command_continues_on_another(hosts: Hosts, tmp_path: Path) -> None:
    """Its engines on other hosts end with it; of their CPUs the new driver waits for what it needs."""
    run = two_engines(hosts, tmp_path, tmp_path / "go")
    run.prefix = hosts.other.prefix
    process = run.start()
    run.wait_for(process, lambda: closed_pairs(run))
    closed = run.files("pairs/shard-*.parquet")
    hosts.other.dies()
    assert process.wait(60) == -signal.SIGKILL
    (tmp_path / "go").touch()
    run.prefix = hosts.head.prefix
    run.succeeds()
    assert closed.items() <= run.files("pairs/shard-*.parquet").items()
    assert each_pair_once(run)
    until(lambda: hosts.head.free().get("CPU") == CPUS[0], 120)
