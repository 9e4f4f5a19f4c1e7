"""Score a judge on benchmarks with gold labels, or score verdicts that were made anywhere.

    python -m ray_app.evaluate --model M --benchmark rewardbench=rows.jsonl [--benchmark test.jsonl] --output DIR
    python -m ray_app.evaluate --verdicts verdicts.jsonl --benchmark rewardbench=rows.jsonl --output DIR

DIR/NAME/ gets the votes, verdicts.jsonl and summary.json (RewardBench: leaderboard.json too); DIR/summary.json has all
summaries. The same command again continues. `--compare OTHER` sets the run against the output folder of another one:
a paired difference with its interval. Definitions: `ray_app/metrics/`, one figure a file.
"""

from __future__ import annotations

if __name__ == "__main__":  # the imports take seconds, and to stop meanwhile is no failure either
    from ray_app.system.stopping import listen

    listen()

from typing import NoReturn

from ray_app.command.load_settings import leave, run_command
from ray_app.command.settings import EvaluateSettings


def main(settings: EvaluateSettings) -> int:
    """Judge where needed, write the summaries, print them."""
    # Ray and the rest are loaded here, so that `--help` and a wrong setting answer at once.
    from ray_app.command.evaluation import evaluate

    return evaluate(settings)


def entry_point() -> NoReturn:
    """`ste-evaluate`, and `python -m ray_app.evaluate`."""
    leave(run_command(EvaluateSettings, main))


if __name__ == "__main__":
    entry_point()
