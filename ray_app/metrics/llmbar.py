"""LLMBar's averages (arXiv 2310.07641, table 2): means of the four adversarial subsets and of all five."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.benchmarks.llmbar import SUBSETS
from ray_app.metrics.bootstrap import RESAMPLES, Estimate
from ray_app.metrics.cell_means import cell_means
from ray_app.metrics.outcome import Outcome

FIGURES = {"adversarial": SUBSETS[1:], "average": SUBSETS}


def llmbar(outcomes: Sequence[Outcome], seed: int, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """`adversarial` and `average`: unweighted means over subsets; undefined while one of them is absent."""
    return cell_means(outcomes, lambda outcome: outcome.subset, FIGURES, seed, resamples)
