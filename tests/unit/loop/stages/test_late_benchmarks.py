"""A benchmark that is configured after the instructions were made: nothing is invalid, and the overlap is counted."""

from __future__ import annotations

import json
from pathlib import Path

from loop_runs import CONFIGS_DIR

from ray_app.base.schema import INSTRUCTIONS
from ray_app.command.load_settings import load_settings
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages import instructions
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.folder import RunFolder
from ray_app.run.shards import ShardWriter

SHARED = "Name the three largest moons of the planet Jupiter and say when each was first seen."
OWN = "Write a limerick about a lighthouse keeper who is afraid of the dark and of boats."


def settings(*tests: Path) -> IterateSettings:
    given = json.dumps([f"{path.stem}={path}" for path in tests])
    return load_settings(
        IterateSettings, ["--config", str(CONFIGS_DIR / "smollm2-135m-cpu.yaml"), "--evaluation.test", given]
    )


def benchmark(path: Path, instruction: str) -> Path:
    row = {"id": "1", "instruction": instruction, "response_a": "x", "response_b": "y", "label": "A"}
    path.write_text(json.dumps(row) + "\n")
    return path


def test_the_overlap_of_a_late_benchmark_is_counted(tmp_path: Path) -> None:
    first = benchmark(tmp_path / "first.jsonl", "Something else altogether")
    late = benchmark(tmp_path / "late.jsonl", f"Please: {SHARED}")
    run = RunFolder(str(tmp_path / "run"))
    with ShardWriter(run.stage_dir("instructions"), INSTRUCTIONS) as writer:
        for text in (SHARED, OWN):
            writer.add([{**dict.fromkeys(INSTRUCTIONS.names), "instruction_id": text[:4], "text": text}])
    before, after = settings(first), settings(first, late)
    assert instructions.settings_of(before, Inputs(before)) == instructions.settings_of(after, Inputs(after))
    checked = instructions.checked_benchmarks(before)
    assert instructions.late_overlap(before, Inputs(before), run, checked) == {}
    assert instructions.late_overlap(after, Inputs(after), run, checked) == {f"late={late}": 1}
