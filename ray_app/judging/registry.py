"""Which protocols there are, by the mode of the judge and the kind of the benchmark."""

from __future__ import annotations

from ray_app.benchmarks import Benchmark
from ray_app.judging.best_of import BestOf
from ray_app.judging.pairwise import Pairwise
from ray_app.judging.pointwise import Pointwise
from ray_app.judging.protocol import JudgingProtocol, PairProtocol
from ray_app.judging.rated import Rated

PROTOCOLS: dict[str, PairProtocol] = {"pairwise": Pairwise(), "pointwise": Pointwise()}


def protocol_of(mode: str) -> PairProtocol:
    """The protocol of a judge's mode."""
    return PROTOCOLS[mode]


def has_pairs(benchmark: Benchmark) -> bool:
    """Whether its rows are pairs of responses, so that two judges can be compared on them row by row."""
    return all(protocol_for(mode, benchmark).judges_pairs for mode in PROTOCOLS)


def protocol_for(mode: str, benchmark: Benchmark) -> JudgingProtocol:
    """How a judge of this mode is asked about a benchmark."""
    if benchmark.kind == "rated":
        return Rated()
    if benchmark.kind == "best_of":
        return BestOf(letters=mode == "pairwise")
    return PROTOCOLS[mode]
