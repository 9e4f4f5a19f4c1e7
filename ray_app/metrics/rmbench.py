"""RM-Bench's figures (arXiv 2410.16184, as its release's scorer computes them).

In a domain, hard, normal and easy accuracy are means over the cells of the matrix of styles above, on and below its
diagonal; the domain's score is the mean of these three. Over all, each of them is the mean of the four domains, and the
average is the mean of the domains' scores. A cell has one comparison a question, so a mean over cells is one over rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray_app.benchmarks.rmbench import DOMAINS, LEVELS, QUESTIONS, STYLES, cell_of, styles_of
from ray_app.metrics.accuracy import accuracy
from ray_app.metrics.bootstrap import RESAMPLES, Estimate, estimates
from ray_app.metrics.cell_means import cell_means
from ray_app.metrics.outcome import Outcome

AVERAGE = "average"
FIGURES: dict[str, list[tuple[str, str]]] = {
    **{domain: [(domain, level) for level in LEVELS] for domain in DOMAINS},
    **{level: [(domain, level) for domain in DOMAINS] for level in LEVELS},
    AVERAGE: [(domain, level) for domain in DOMAINS for level in LEVELS],
}


def rmbench(outcomes: Sequence[Outcome], seed: int, resamples: int = RESAMPLES) -> dict[str, Any]:
    """`figures`: domains, levels, average (a figure is undefined while a cell of it is absent). `matrix`: accuracy by
    {style of the chosen response: {style of the rejected one}}, over rows whose id names both. `complete`: the whole
    published set.
    """
    known = [o for o in outcomes if cell_of(o.subset) is not None]
    counts = Counter(o.subset.rpartition("-")[0] for o in known)
    return {
        "figures": cell_means(known, lambda outcome: cell_of(outcome.subset), FIGURES, seed, resamples),
        "matrix": _matrix(outcomes, seed, resamples),
        "complete": dict(counts) == {domain: n * len(STYLES) ** 2 for domain, n in QUESTIONS.items()},
        "rows_of_no_domain": len(outcomes) - len(known),
    }


def _matrix(outcomes: Sequence[Outcome], seed: int, resamples: int) -> dict[str, dict[str, Estimate]]:
    matrix: dict[str, dict[str, Estimate]] = {}
    for chosen in STYLES:
        for rejected in STYLES:
            rows = [o for o in outcomes if styles_of(o.id) == (chosen, rejected)]
            if rows:
                found = estimates({"cell": accuracy(rows)}, [o.group for o in rows], seed, resamples)
                matrix.setdefault(chosen, {})[rejected] = found["cell"]
    return matrix
