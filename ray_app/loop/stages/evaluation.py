"""Evaluation: a judge scores pairs with gold labels that are never trained on (section 4.2).

Each set (validation, every test benchmark, the held-out synthetic pairs) is a committed unit of its own:
iter_NN/evaluation/SET/ holds the votes, verdicts.jsonl and summary.json. More benchmarks never invalidate. Sets that
are left of an iteration are judged together, as one stream.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.base.prompts import Prompt, transcript
from ray_app.base.schema import HELDOUT, PairwiseRow, content_id, unpack_text
from ray_app.base.settings_parts import PriceSettings
from ray_app.benchmarks import Benchmark
from ray_app.benchmarks.pairwise import record
from ray_app.benchmarks.registry import benchmark_name, has_ratings
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError
from ray_app.generation.couples import similarities
from ray_app.generation.runner import StageResult
from ray_app.judging.explanations import numbers_of
from ray_app.judging.gold_set import GoldSet, judge_sets
from ray_app.judging.judge import Judge
from ray_app.judging.protocol import Answers
from ray_app.judging.registry import protocol_for
from ray_app.judging.spending import cost_of, timed
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import VALIDATION, Inputs
from ray_app.metrics import Outcome, compare, read_verdicts, write_verdicts
from ray_app.metrics.cost import Prices
from ray_app.metrics.verdict_file import join as joined
from ray_app.run.storage import exists, join, list_files, read_parquet, write_bytes_atomic, write_json_atomic

log = logging.getLogger(__name__)
FIRST_JUDGE = "first_judge_evaluation"  # the stage of the first judge, where it is another model than the seed
BASELINE = "baseline_evaluation"  # the stage of the seed with another prompt
HELDOUT_SET = "heldout"
VERDICTS = "verdicts.jsonl"
ROWS = "rows.jsonl"  # the held-out pairs in the common form, for judges of other runs (`evaluate`)


def sets_of(settings: IterateSettings) -> dict[str, str]:
    """{set name: NAME[=PATH]}, validation first. Held-out pairs have no path: they are the run's own.

    A set's name is its folder, so names are unique. Raises InputError where they are not.
    """
    part = settings.evaluation
    named = {VALIDATION: part.validation} if part.validation else {}
    for spec in part.test:
        name = benchmark_name(spec)
        if name in (VALIDATION, HELDOUT_SET):
            raise InputError(f"evaluation.test: {spec} is called {name}, a set of the loop's own; write NAME=PATH")
        if name in named:
            raise InputError(f"evaluation.test: {named[name]} and {spec} are both called {name}; write NAME=PATH")
        named[name] = spec
    rated = next((spec for spec in named.values() if has_ratings(spec)), None)
    if rated:
        raise InputError(f"evaluation: {rated} has single responses with human scores, which only `evaluate` takes")
    if part.heldout and settings.instructions.heldout_fraction > 0:
        named[HELDOUT_SET] = ""
    return named


def settings_of(
    settings: IterateSettings, inputs: Inputs, judge: Mapping[str, Any], spec: str = "", prompt: Prompt | None = None
) -> dict[str, Any]:
    """What the fingerprint of one set covers. `judge` is the identity of the engine that judges; `prompt` stands in for
    the run's own.
    """
    return {"seed": settings.seed, **inputs.covered(spec, prompt), "judge": judge}


@dataclass(frozen=True)
class NamedSet:
    """A set of the run: its name, where it is read from (nothing: the run's own held-out pairs), and its folder."""

    name: str
    spec: str
    directory: str


def ask(
    context: Context,
    iteration: int,
    sets: Sequence[NamedSet],
    judge: Judge,
    told: Mapping[str, Any] | None = None,
    before: str | None = None,
) -> Callable[[], list[StageResult]]:
    """Judge sets together. What is returned writes their verdicts and summaries, and gives the numbers of each: that
    needs no engine, takes seconds, and may be done beside the next stage, in another thread.

    `told` is said of the judge beside the numbers. `before` is the folder of what the judge is compared with: the
    evaluations of the one that it was trained after.
    """
    limit = context.settings.evaluation.limit
    gold = [
        GoldSet(
            context.inputs.gold_set(one.spec, limit) if one.spec else heldout(context, iteration),
            one.directory,
            one.name,
        )
        for one in sets
    ]
    asked = [one for one in gold if one.benchmark.n]
    most, voting = context.settings.evaluation.max_engine_errors, context.inputs.voting(iteration)
    judged = judge_sets(context.runner, judge, asked, voting, most) if asked else []

    def results() -> list[StageResult]:
        found, answered = [], iter(judged)
        for one in gold:
            context.check_lease()  # a thread that a stop has left behind writes into no other driver's run
            result = StageResult(extra={"set": one.name, "headline": None})
            if one.benchmark.n:
                result = _summed(context, iteration, one, *next(answered), judge=judge, before=before)
            found.append(result.with_extra(dict(told or {})))
        return found

    return results


def _summed(
    context: Context,
    iteration: int,
    gold: GoldSet,
    result: StageResult,
    answers: Answers,
    *,
    judge: Judge,
    before: str | None,
) -> StageResult:
    """Write what was found on one set, and add it to the numbers of its judging."""
    benchmark, name, voting = gold.benchmark, gold.name, context.inputs.voting(iteration)
    protocol = protocol_for(judge.mode, benchmark)
    outcomes = protocol.outcomes(benchmark, answers, voting)
    summary = protocol.summary(benchmark, answers, voting, outcomes)
    engine, price = context.runner.pools.resolved(judge.engine), context.settings.evaluation.price
    timing = timed(result, engine.replicas * engine.gpus_per_replica)
    endpoint = engine.kind == "openai"
    summary["cost"] = cost_of(result, benchmark, answers, timing, endpoint=endpoint, prices=prices_of(price, engine))
    if "tables_at_once" in result.extra:
        summary["cost"]["notes"].append("seconds: this set's share, by rows, of all that were judged together")
    write_verdicts(join(gold.directory, VERDICTS), protocol.records(benchmark, answers, voting))
    said = numbers_of(gold.directory, benchmark.rows)
    summary |= said
    compared = before is not None and outcomes is not None
    change = against_before(benchmark, outcomes or [], before or "", name, context.settings.seed) if compared else None
    if change:
        summary["against_sft" if context.folder.phase else "against_iteration_before"] = change
    if name == HELDOUT_SET:
        write_rows(gold)
    write_json_atomic(join(gold.directory, "summary.json"), summary)
    result = result.with_extra(context.since_checkpoint(judge.engine.model, result))
    told = {
        "set": name,
        "headline": protocol.headline(summary),
        "change": change,
        "per_1000": summary["cost"]["per_1000"],
    }
    return result.with_extra(told | said)


def write_rows(gold: GoldSet) -> None:
    """A set's pairs in the common form, for judges of other runs."""
    lines = (json.dumps(record(row), ensure_ascii=False) for row in gold.benchmark.rows)
    write_bytes_atomic(join(gold.directory, ROWS), "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))


def prices_of(given: PriceSettings, engine: EngineSettings) -> Prices:
    """Those that fit an engine: of a run's judges the first may be an endpoint's, and the others engines on GPUs."""
    if engine.kind == "openai":
        return Prices(prompt_tokens=given.prompt_tokens, completion_tokens=given.completion_tokens)
    return Prices(gpu_hour=given.gpu_hour if engine.on_gpu else None)


def against_before(
    benchmark: Benchmark, outcomes: list[Outcome], evaluations: str, name: str, seed: int
) -> dict[str, Any] | None:
    """A judge against the one before it, whose evaluations these are, on the same rows; None where it did not judge all
    of them.
    """
    before = join(evaluations, name, VERDICTS)
    if not exists(before):
        return None
    try:
        return compare(joined(benchmark, read_verdicts(before)), outcomes, seed)
    except InputError as fault:  # pairs made anew each iteration are other rows
        if name != HELDOUT_SET:
            log.warning("%s is not compared with %s: %s", name, evaluations, fault)
        return None


def heldout(context: Context, iteration: int) -> Benchmark:
    """The held-out synthetic pairs as a benchmark: chosen is better by construction; a hash bit places it."""
    files = list_files(context.pairs_dir(iteration), "shard-*.parquet")
    pairs = [row for file in files for row in read_parquet(file).to_pylist() if row["split"] == HELDOUT]
    rows = list(_heldout_rows(pairs))
    return Benchmark(name=HELDOUT_SET, rows=rows, n_in=len(rows), source="pairs")


def _heldout_rows(pairs: Sequence[dict[str, Any]]) -> Iterator[PairwiseRow]:
    known = _similarities(pairs)
    mixed = len({pair["strategy"] for pair in pairs}) > 1  # labels of people and labels by construction stay apart
    for pair in pairs:
        chosen_is_a = int(pair["pair_id"], 16) % 2 == 0
        sides = (pair["chosen"], pair["rejected"]) if chosen_is_a else (pair["rejected"], pair["chosen"])
        yield PairwiseRow(
            id=pair["pair_id"],
            subset=pair["strategy"] if mixed else pair["category"] or HELDOUT_SET,
            instruction=unpack_text(pair["instruction"]),
            response_a=sides[0],
            response_b=sides[1],
            label="A" if chosen_is_a else "B",
            group=pair.get("group") or content_id(pair["instruction"]),
            mirror=pair.get("mirror"),
            similarity=known.get(pair["pair_id"]),
        )


def _similarities(pairs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """{pair_id: similarity of its two instructions} of the pairs that have two."""
    two = [pair for pair in pairs if pair["modified_instruction"]]
    asked = [(transcript(unpack_text(pair["instruction"])), pair["modified_instruction"]) for pair in two]
    return dict(zip((pair["pair_id"] for pair in two), similarities(asked), strict=True))
