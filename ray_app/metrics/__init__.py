"""Statistics of judges (docs/evaluation.md): every figure with its n and a clustered bootstrap interval.

`summarise` makes the JSON-able summary, `score_verdict_file` does so from a verdict file, `compare` sets two
runs on the same rows against each other, `terminal_table` prints a summary.
"""

from ray_app.metrics.bootstrap import Estimate, Ratio, estimates
from ray_app.metrics.compare import compare
from ray_app.metrics.outcome import Outcome, official_order, outcomes_of
from ray_app.metrics.summary import summarise
from ray_app.metrics.verdict_file import read_verdicts, score_verdict_file, write_verdicts

__all__ = [
    "Estimate",
    "Outcome",
    "Ratio",
    "compare",
    "estimates",
    "official_order",
    "outcomes_of",
    "read_verdicts",
    "score_verdict_file",
    "summarise",
    "write_verdicts",
]
