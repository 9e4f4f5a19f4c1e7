"""A reader of stdout that leaves costs nothing: no traceback, no result, no other exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAIRS = ROOT / "configs" / "demo" / "validation.jsonl"


def evaluate_for_nobody(tmp_path: Path, output: str, *options: str, errors: bool) -> subprocess.CompletedProcess[str]:
    """`evaluate` of given verdicts, which needs no engine, into a pipe whose reader has left; `errors`: stderr too."""
    ids = [json.loads(line)["id"] for line in PAIRS.read_text().splitlines()]
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.write_text("".join(json.dumps({"id": id, "verdict": "A"}) + "\n" for id in ids))
    given = ["--verdicts", verdicts, "--benchmark", f"val={PAIRS}", "--output", tmp_path / output, *options]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "ray_app.evaluate", *map(str, given)],
            cwd=ROOT,
            stdout=writing,
            stderr=writing if errors else subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("errors", [False, True], ids=["head", "2>&1 head"])
def test_evaluate_writes_all_and_ends_with_0_without_a_reader(tmp_path: Path, errors: bool) -> None:
    ended = evaluate_for_nobody(tmp_path, "out", errors=errors)
    assert ended.returncode == 0
    assert errors or ended.stderr == ""
    everything = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert everything["val"] == json.loads((tmp_path / "out" / "val" / "summary.json").read_text())
    assert everything["val"]["n"] == 32
    assert (tmp_path / "out" / "val" / "verdicts.jsonl").is_file()


def test_bad_input_is_2_and_help_is_0_without_a_reader(tmp_path: Path) -> None:
    refused = evaluate_for_nobody(tmp_path, "out", "--limit", "x", errors=True)
    helped = evaluate_for_nobody(tmp_path, "out", "--help", errors=False)
    assert (refused.returncode, helped.returncode, helped.stderr) == (2, 0, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("printing", ["print('row', n)", "console.print(table)"])
def test_a_reader_that_leaves_in_the_middle_stops_nothing(tmp_path: Path, printing: str, unbuffered: str) -> None:
    """More is printed than the pipe holds, so that the reader leaves while it is written."""
    done = tmp_path / "done"
    script = f"""
        from ray_app.base.settings_parts import CommandSettings
        from ray_app.command.load_settings import leave, run_command
        from rich.console import Console
        from rich.table import Table

        def main(settings):
            console, table = Console(), Table()
            for n in range(3000):
                table.add_row("a row of a table " * 4)
            for n in range(30000 if "row" in {printing!r} else 1):
                {printing}
            open({str(done)!r}, "w").close()
            return 0

        leave(run_command(CommandSettings, main, []))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    assert not done.exists(), "it is still printing"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(300) == 0
    assert done.exists()


def test_a_broken_pipe_elsewhere_is_a_fault() -> None:
    script = """
        import os
        from ray_app.base.settings_parts import CommandSettings
        from ray_app.command.load_settings import leave, run_command

        def main(settings):
            reading, writing = os.pipe()
            os.close(reading)
            os.write(writing, b"work")
            return 0

        leave(run_command(CommandSettings, main, []))
    """
    line = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1
    assert "BrokenPipeError" in ended.stderr
