"""`judge`: the verdicts of a file of pairs."""

from __future__ import annotations

from pathlib import Path

from ray_app.benchmarks import load_benchmark
from ray_app.command.judging import judge_all, load_judge, make_folder, save_verdicts, voting_of
from ray_app.command.settings import JudgeSettings
from ray_app.errors import InputError
from ray_app.run import storage
from ray_app.run.location import require_kept


def judge_file(settings: JudgeSettings, source: str, target: str) -> int:
    """Verdicts of every pair of `source` in `target`."""
    pairs = load_benchmark(f"pairwise={source}", settings.limit, labelled=False)
    require_kept("--output", target, Path.cwd())
    check_output(source, target)
    folder, judge = f"{target}.parts", load_judge(settings)
    judged = judge_all(settings, judge, {folder: pairs})[folder]
    written = save_verdicts(judge, judged, voting_of(settings), folder, target, explanations=settings.explanations)
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
