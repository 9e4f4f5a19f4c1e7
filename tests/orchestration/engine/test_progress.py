"""Progress while no row is finished: the engines' tokens are told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
import ray

from ray_app.system import progress
from ray_app.system.progress import Part, Progress

pytestmark = pytest.mark.usefixtures("cluster")


class Told(logging.Handler):
    """Keeps what was logged; `enough` is set at the second line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.enough = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if len(self.lines) == 2:
            self.enough.set()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setattr(progress, "QUIET_S", 0.05)
    handler, level = Told(), progress.log.level
    progress.log.addHandler(handler)
    progress.log.setLevel(logging.INFO)
    yield handler
    progress.log.setLevel(level)
    progress.log.removeHandler(handler)


def test_tokens_are_told_before_the_first_row(told: Told) -> None:
    """Two stages that share their engines: the tokens stand on the first line, and are not told twice."""

    class Engine:  # inside the test, so that Ray sends it to its workers by value
        """Makes seven tokens between two questions."""

        def __init__(self) -> None:
            self.made = 0

        async def generated(self) -> int:
            self.made += 7
            return self.made

    class Writer:
        async def progress(self) -> dict[str, float]:
            return {"units": 0}

        async def news(self) -> list[str]:
            return []

    engines, writer = (ray.remote(Engine).remote(),), ray.remote(Writer).remote()
    with Progress(Part("pairs", 64, writer, engines), Part("judgments", 128, writer, engines)):
        assert told.enough.wait(60)
    pairs, judgments = told.lines[:2]
    assert pairs.startswith("pairs: 0 of 64 rows, 7 tokens for both stages, ")
    assert pairs.endswith("no row is finished yet")
    assert judgments == "judgments: 0 of 128 rows, no row is finished yet"


def test_a_writer_that_hangs_is_told(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk may: then engines wait for it, and nothing else would say why."""
    monkeypatch.setattr(progress, "ASK_S", 0.05)
    monkeypatch.setattr(progress, "SILENT_S", 0.1)

    class Writer:
        async def progress(self) -> dict[str, float]:
            import asyncio

            await asyncio.Event().wait()
            return {}

        async def news(self) -> list[str]:
            return []

    with Progress(Part("judgments", 64, ray.remote(Writer).remote())):
        assert told.enough.wait(60)
    assert "judgments: the shard writer has not answered" in told.lines[0]


def test_what_the_client_warns_of_is_said_once_with_the_stage(told: Told) -> None:
    """Also what comes too late for a look: it is asked for as the block ends."""

    class Writer:
        def __init__(self) -> None:
            self.lines = ["engine 1 died"]

        async def progress(self) -> dict[str, float]:
            return {"units": 0}

        async def news(self) -> list[str]:
            lines, self.lines = self.lines, []
            return lines

        async def tell(self, line: str) -> None:
            self.lines.append(line)

    writer = ray.remote(Writer).remote()
    with Progress(Part("judgments", 64, writer)):
        assert told.enough.wait(60)
        ray.get(writer.tell.remote("engine 1 answers again"))
    assert told.lines.count("judgments: engine 1 died") == 1
    assert told.lines.count("judgments: engine 1 answers again") == 1
