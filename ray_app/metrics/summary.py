"""The JSON-able summary of one benchmark: overall, by subset, baselines, and the benchmark's own figures.

    {"benchmark", "protocol", "votes", "n_in", "n", "clusters", "quarantined": {reason: n},
     "dropped": {reason: n}, "overall": block, "subsets": {name: block}, "length_gap_quartiles": […],
     "similarity_thirds": […], "calibration", "human_agreement",
     "rewardbench" | "judgebench" | "mtbench" | "llmbar" | "rmbench" | "ppe"}

A block holds estimates {"value", "n", "low", "high"} by metric name; n is rows, except where the metric says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ray_app.base.schema import derive_seed
from ray_app.benchmarks import judgebench, ppe
from ray_app.benchmarks.base import Benchmark
from ray_app.errors import InputError
from ray_app.metrics.accuracy import accuracy, sample_accuracy
from ray_app.metrics.baselines import against_overlap, beyond, length_baseline, length_counts, overlap_baseline
from ray_app.metrics.bootstrap import RESAMPLES, Estimate, Ratio, estimates
from ray_app.metrics.calibration import calibration
from ray_app.metrics.constant_baseline import constant_baseline
from ray_app.metrics.first_position import first_position_rate
from ray_app.metrics.judgebench import net_agreement
from ray_app.metrics.kappa import human_agreement
from ray_app.metrics.length_gap import length_gap_quartiles
from ray_app.metrics.llmbar import llmbar
from ray_app.metrics.mirrored import instruction_sensitivity, mirrored_accuracy
from ray_app.metrics.mtbench import mtbench
from ray_app.metrics.outcome import ANY, Outcome
from ray_app.metrics.position_consistent import inconsistent_rate, position_consistent_accuracy
from ray_app.metrics.ppe import ppe_correctness
from ray_app.metrics.proportion import CONFIDENCE
from ray_app.metrics.rewardbench import rewardbench
from ray_app.metrics.rmbench import rmbench
from ray_app.metrics.similarity import accuracy_by_similarity
from ray_app.metrics.unparsed import unparsed_rate, unparsed_vote_rate

Block = dict[str, Estimate]


def summarise(
    benchmark: Benchmark,
    outcomes: Sequence[Outcome],
    seed: int,
    resamples: int = RESAMPLES,
    *,
    votes: int | None = None,
    unjudged: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Every figure of a benchmark's outcomes. Raises InputError when there are none.

    `votes` is the k that was asked for (early-stopped votes draw fewer; None: the most that were drawn), `unjudged`
    the rows that were lost on the way through the engine, {id: reason}.
    """
    if not outcomes:
        raise InputError(f"{benchmark.name}: no row was judged")
    outcomes = sorted(outcomes, key=lambda outcome: outcome.id)
    names = sorted({outcome.subset for outcome in outcomes})
    votes = votes or _votes(outcomes)
    subsets = {
        name: block([o for o in outcomes if o.subset == name], votes, _seed(seed, name), resamples)
        for name in (names if names != [""] else [])
    }
    summary: dict[str, Any] = {
        "benchmark": benchmark.name,
        "kind": "pairwise",
        "source": benchmark.source,
        "protocol": _protocol(outcomes),
        "votes": votes,
        "votes_partial": any(o.partial for o in outcomes),
        "n_in": benchmark.n_in,
        "n": len(outcomes),
        "clusters": len({o.group for o in outcomes}),
        "quarantined": dict(Counter([*(f.reason for f in benchmark.faulty), *(unjudged or {}).values()])),
        "dropped": dict(benchmark.dropped),
        "seed": seed,
        "resamples": resamples,
        "confidence": CONFIDENCE,
        "overall": _overall(outcomes, votes, _seed(seed, ""), resamples),
        "length_counts": length_counts(outcomes),
        "length_gap_quartiles": length_gap_quartiles(outcomes, _seed(seed, "length_gap"), resamples),
        "subsets": subsets,
    }
    thirds = accuracy_by_similarity(outcomes, _seed(seed, "similarity"), resamples)
    summary |= {"similarity_thirds": thirds} if thirds else {}
    return summary | _special(benchmark, outcomes, votes, seed, resamples)


def _overall(outcomes: Sequence[Outcome], votes: int, seed: int, resamples: int) -> Block:
    """The block of all rows, and how far the judge is above what needs no judgment."""
    main = (sample_accuracy(outcomes) if votes > 1 else None) or accuracy(outcomes)
    ratios = {
        "beyond_longer": beyond(main, length_baseline(outcomes)),
        "beyond_overlap": beyond(main, overlap_baseline(outcomes)),
        "accuracy_against_overlap": against_overlap(main, outcomes),
    }
    known = {name: ratio for name, ratio in ratios.items() if ratio.denominator.any()}
    groups = [outcome.group for outcome in outcomes]
    return block(outcomes, votes, seed, resamples) | estimates(known, groups, seed, resamples)


def block(outcomes: Sequence[Outcome], votes: int, seed: int, resamples: int = RESAMPLES) -> Block:
    """The metrics of docs/evaluation.md over some rows, all from the same resamples.

    With votes, `accuracy` is that of one sample (absent where voting stopped early) and `vote_accuracy` that
    of the majority; without, `accuracy` is that of the verdicts.
    """
    ratios: dict[str, Ratio | None] = {}
    if votes > 1:
        ratios["accuracy"] = sample_accuracy(outcomes)
        ratios["accuracy_unparsed_half"] = sample_accuracy(outcomes, unparsed=0.5)
        ratios["vote_accuracy"] = accuracy(outcomes)
        ratios["vote_accuracy_unparsed_half"] = accuracy(outcomes, unparsed=0.5)
        ratios["unparsed_vote_rate"] = unparsed_vote_rate(outcomes)
    else:
        ratios["accuracy"] = accuracy(outcomes)
        ratios["accuracy_unparsed_half"] = accuracy(outcomes, unparsed=0.5)
    ratios |= {
        "position_consistent_accuracy": position_consistent_accuracy(outcomes),
        "inconsistent_rate": inconsistent_rate(outcomes),
        "first_position_rate": first_position_rate(outcomes),
        "unparsed_rate": unparsed_rate(outcomes),
        "mirrored_accuracy": mirrored_accuracy(outcomes),
        "instruction_sensitivity": instruction_sensitivity(outcomes),
        "length_baseline": length_baseline(outcomes),
        "overlap_baseline": overlap_baseline(outcomes),
        "constant_baseline": constant_baseline(outcomes),
    }
    defined = {name: ratio for name, ratio in ratios.items() if ratio is not None and ratio.denominator.any()}
    return estimates(defined, [outcome.group for outcome in outcomes], seed, resamples)


def _special(
    benchmark: Benchmark, outcomes: Sequence[Outcome], votes: int, seed: int, resamples: int
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if benchmark.spec == "rewardbench":
        out["rewardbench"] = rewardbench(outcomes, _seed(seed, "rewardbench"), resamples)
    elif benchmark.spec in (judgebench.SPEC.name, judgebench.CLAUDE.name):
        out["judgebench"] = _judgebench(outcomes, seed, resamples)
    elif benchmark.spec == "mtbench_human":
        out["mtbench"] = mtbench(outcomes, _seed(seed, "mtbench"), resamples)
    elif benchmark.spec == "llmbar":
        out["llmbar"] = llmbar(outcomes, _seed(seed, "llmbar"), resamples)
    elif benchmark.spec == "rmbench":
        out["rmbench"] = rmbench(outcomes, _seed(seed, "rmbench"), resamples)
    elif benchmark.spec == ppe.CORRECTNESS:
        out["ppe"] = ppe_correctness(outcomes, _seed(seed, "ppe"), resamples)
    if votes > 1:
        out["calibration"] = calibration(outcomes, _seed(seed, "calibration"))
    agreement = human_agreement(outcomes, _seed(seed, "human_agreement"), resamples)
    return out if agreement is None else out | {"human_agreement": agreement}


def _judgebench(outcomes: Sequence[Outcome], seed: int, resamples: int) -> dict[str, Block]:
    out = {}
    for name in ["overall", *sorted({o.subset for o in outcomes} - {""})]:
        rows = [o for o in outcomes if name in ("overall", o.subset)]
        ratios = {"net_agreement": net_agreement(rows), "both_orders": position_consistent_accuracy(rows)}
        out[name] = estimates(ratios, [o.group for o in rows], _seed(seed, f"judgebench {name}"), resamples)
    return out


def _votes(outcomes: Sequence[Outcome]) -> int:
    return max((v.drawn for o in outcomes for _, _, v in o.verdicts() if v is not None), default=1) or 1


def _protocol(outcomes: Sequence[Outcome]) -> str:
    kinds = {ANY if ANY in o.orders else len(o.orders) for o in outcomes if o.label is not None}
    names: dict[Any, str] = {2: "both_orders", 1: "official", ANY: "given_verdicts"}
    return names[kinds.pop()] if len(kinds) == 1 else "mixed"


def _seed(seed: int, name: str) -> int:
    return derive_seed(seed, 0, "bootstrap", name, "", 0)
