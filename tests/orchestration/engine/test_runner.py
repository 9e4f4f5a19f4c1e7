"""A stage on a local Ray: what it says of how it came by its weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.schema import JUDGMENTS
from ray_app.engine.manager import PoolManager
from ray_app.generation.runner import Job, Runner, result_of

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]


@pytest.mark.long
def test_a_stage_tells_how_its_weights_came(tmp_path: Path, dataset: Make, program: Make, scripted: Make) -> None:
    pools = PoolManager("t")
    runner = Runner(pools)

    def judge(name: str) -> dict[str, Any]:
        job = Job(
            stage="judgments",
            directory=str(tmp_path / name),
            schema=JUDGMENTS,
            key=("pair_id", "order"),
            source=dataset(4),
            total=8,
            program=program(),
            engine=scripted({"p": [0.5]}),
            role="judge",
        )
        return runner.run(job).extra

    try:
        before = time.time()
        first, second, again = judge("first"), judge("second"), judge("second")
    finally:
        pools.close()
    assert first["weights"] == "started"
    assert first["weights_seconds"] > 0
    assert before < first["first_answer"] < time.time()
    assert second == {"resumed_units": 0, "weights": "reused", "weights_seconds": 0.0}
    assert again == {"resumed_units": 8}, "nothing was asked, so no engine was needed"


def test_texts_cut_in_their_reasoning_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, program: Make, scripted: Make
) -> None:
    job = Job("judgments", str(tmp_path), JUDGMENTS, ("pair_id", "order"), None, 0, program(), scripted(), "judge", 2)
    for cut, told in ((0, []), (3, [True])):
        caplog.clear()
        result = result_of(job, {"cut_in_reasoning": cut}, 1.0, {})
        assert ["iteration 2: judgments: 3 texts were cut" in message for message in caplog.messages] == told
        assert result.extra == ({"cut_in_reasoning": 3} if cut else {})
