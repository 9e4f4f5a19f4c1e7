"""Use a judge: a file of response pairs in, a file of verdicts out; or the same behind HTTP.

    python -m ray_app.judge --model M --input pairs.jsonl --output verdicts.jsonl [--votes 32] [--limit N]
    python -m ray_app.judge --model M --serve [--http.port 8000] [--votes 8]

Both orders of every pair are judged. Votes are durable as they come, in OUTPUT.parts/ (one Parquet row a vote, with its
explanation), so the same command continues after a kill; the verdict file appears whole, in the input's order.
"""

from __future__ import annotations

if __name__ == "__main__":  # the imports take seconds, and to stop meanwhile is no failure either
    from ray_app.stopping import listen

    listen()

from pathlib import Path
from typing import NoReturn

from pydantic import Field

from ray_app.benchmarks import load_benchmark
from ray_app.cli import leave, run_command
from ray_app.errors import InputError
from ray_app.http_request import HttpSettings
from ray_app.judging.command import JudgingCommand, judge_all, make_folder, save_verdicts, serve_judge
from ray_app.run import storage
from ray_app.run.where import require_kept


class JudgeSettings(JudgingCommand):
    """`python -m ray_app.judge`."""

    input: str | None = Field(None, description="pairwise JSONL or Parquet: id, instruction, response_a, response_b")
    output: str | None = Field(None, description="verdict file (JSONL)")
    explanations: bool = Field(False, description="put the judge's texts into the verdict file too")
    serve: bool = Field(False, description="answer POST /judge over HTTP instead (docs/serving.md)")
    http: HttpSettings = HttpSettings()


def main(settings: JudgeSettings) -> int:
    """Judge what no closed shard holds yet, then write the verdict file; or serve."""
    if settings.serve:
        given = next((name for name in ("input", "output", "limit") if getattr(settings, name) is not None), None)
        if given:
            raise InputError(f"--{given} has no meaning with --serve: pairs come over HTTP")
        serve_judge(settings, settings.http)
    if settings.input is None or settings.output is None:
        raise InputError(f"--{'input' if settings.input is None else 'output'} is missing")
    return judge_file(settings, settings.input, settings.output)


def judge_file(settings: JudgeSettings, source: str, target: str) -> int:
    """Verdicts of every pair of `source` in `target`."""
    pairs = load_benchmark(f"pairwise={source}", settings.limit, labelled=False)
    require_kept("--output", target, Path.cwd())
    check_output(source, target)
    folder, judge = f"{target}.parts", settings.load_judge()
    judged = judge_all(settings, judge, {folder: pairs})[folder]
    written = save_verdicts(judge, judged, settings.voting(), folder, target, explanations=settings.explanations)
    result = judged.result
    rate = result.completion_tokens / result.seconds if result.seconds else 0
    print(f"{written} verdicts in {target}; {result.completion_tokens:,} tokens, {rate:,.0f} tok/s")
    return 0


def check_output(source: str, target: str) -> None:
    """Raises InputError where the verdict file cannot be written, or would overwrite the pairs, before any judging."""
    make_folder(target.rpartition("/")[0] or ".")
    fs, path = storage.filesystem(target)
    if fs.isdir(path):
        raise InputError(f"--output {target} is a folder; the verdicts are one file")
    if (fs, path) == storage.filesystem(source):
        raise InputError(f"--output {target} is the input, which the verdicts would overwrite")


def entry_point() -> NoReturn:
    """`ste-judge`, and `python -m ray_app.judge`."""
    leave(run_command(JudgeSettings, main))


if __name__ == "__main__":
    entry_point()
