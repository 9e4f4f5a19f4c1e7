"""`judge`: the verdicts of a file of pairs."""

from __future__ import annotations

import os
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


def check_output(source: str, target: str, option: str = "--output") -> None:
    """Raises InputError where what is made cannot be written, or would overwrite the input, before any judging."""
    make_folder(target.rpartition("/")[0] or ".")
    fs, path = storage.filesystem(target)
    if fs.isdir(path):
        raise InputError(f"{option} {target} is a folder; what is made is one file")
    if same_file(source, target):
        raise InputError(f"{option} {target} is the input, which would be overwritten")


def same_file(one: str, other: str) -> bool:
    """Whether two paths or URIs mean one file, however they are spelt."""
    (fs, path), (other_fs, other_path) = storage.filesystem(one), storage.filesystem(other)
    return fs == other_fs and os.path.realpath(path) == os.path.realpath(other_path)
