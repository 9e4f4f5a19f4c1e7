"""Judging: what a judge is, and the protocols by which it is asked.

judge.py       a judge: engine, prompt, sampling; `judge.json` is read and written here
protocol.py    what every protocol has; `protocol_of(mode)`, `protocol_for(mode, benchmark)`
pairwise.py    two responses in both orders, a verdict by letter
pointwise.py   single responses, scored from 1 to 10
best_of.py     four responses, by letter or by ratings (RewardBench 2)
gold_set.py    judging a set with gold labels: `evaluate`, `judge`, the loop, checkpoint selection
command.py     what the commands `judge` and `evaluate` share
"""

from __future__ import annotations

from ray_app.benchmarks import Benchmark
from ray_app.judging.best_of import BestOf
from ray_app.judging.pairwise import Pairwise
from ray_app.judging.pointwise import Pointwise
from ray_app.judging.protocol import JudgingProtocol, PairProtocol

PROTOCOLS: dict[str, PairProtocol] = {"pairwise": Pairwise(), "pointwise": Pointwise()}


def protocol_of(mode: str) -> PairProtocol:
    """The protocol of a judge's mode."""
    return PROTOCOLS[mode]


def protocol_for(mode: str, benchmark: Benchmark) -> JudgingProtocol:
    """How a judge of this mode is asked about a benchmark."""
    if benchmark.kind == "best_of":
        return BestOf(letters=mode == "pairwise")
    return PROTOCOLS[mode]
