"""PPE's correctness figure (arXiv 2410.14872): the plain mean of the accuracies on its five sets."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.benchmarks.ppe import SETS
from ray_app.metrics.bootstrap import RESAMPLES, Estimate
from ray_app.metrics.cell_means import cell_means
from ray_app.metrics.outcome import Outcome


def ppe_correctness(outcomes: Sequence[Outcome], seed: int, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """`average`: undefined while one of the five sets is absent."""
    return cell_means(outcomes, lambda outcome: outcome.subset, {"average": SETS}, seed, resamples)
