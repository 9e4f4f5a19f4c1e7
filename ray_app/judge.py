"""Use a judge: a file of response pairs in, a file of verdicts out.

    python -m ray_app.judge --model M --input pairs.jsonl --output verdicts.jsonl [--votes 32] [--limit N]

Both orders of every pair are judged. Votes are durable as they come, in OUTPUT.parts/ (one Parquet row a vote, with its
explanation), so the same command continues after a kill; the verdict file appears whole, in the input's order.
"""

from __future__ import annotations

import sys

from pydantic import Field

from ray_app.benchmarks import load_benchmark
from ray_app.cli import run_command
from ray_app.judge_command import JudgingCommand, judge_all, save_verdicts
from ray_app.judging import results_of


class JudgeSettings(JudgingCommand):
    """`python -m ray_app.judge`."""

    input: str = Field(description="pairwise JSONL or Parquet: id, instruction, response_a, response_b")
    output: str = Field(description="verdict file (JSONL)")


def main(settings: JudgeSettings) -> int:
    """Judge what no closed shard holds yet, then write the verdict file."""
    pairs = load_benchmark(f"pairwise={settings.input}", settings.limit, labelled=False)
    folder = f"{settings.output}.parts"
    result = judge_all(settings, {folder: pairs}, {})[folder]
    written = save_verdicts(pairs, *results_of(folder, pairs.rows), settings.output, settings.votes)
    rate = result.completion_tokens / result.seconds if result.seconds else 0
    print(f"{written} verdicts in {settings.output}; {result.completion_tokens:,} tokens, {rate:,.0f} tok/s")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(JudgeSettings, main))
