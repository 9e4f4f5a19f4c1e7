"""`evaluate`: benchmarks judged or given verdicts scored, summaries written and printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_app.base.parsers import LAST, OF_LETTERS
from ray_app.base.settings_parts import PriceSettings
from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.benchmarks.registry import benchmark_name
from ray_app.command.judging import Judged, judge_all, load_judge, make_folder, save_verdicts, voting_of
from ray_app.command.settings import EvaluateSettings
from ray_app.errors import InputError
from ray_app.judging.explanations import numbers_of
from ray_app.judging.judge import Judge
from ray_app.judging.registry import has_pairs, protocol_for, protocol_of
from ray_app.judging.spending import cost_of
from ray_app.metrics import Outcome, compare, read_verdicts, score_verdict_file, write_verdicts
from ray_app.metrics.cost import Prices
from ray_app.metrics.rewardbench import leaderboard_json
from ray_app.metrics.terminal_table import print_summary
from ray_app.metrics.verdict_file import join, scored_records
from ray_app.run import storage
from ray_app.run.location import require_kept

VERDICTS = "verdicts.jsonl"


def evaluate(settings: EvaluateSettings) -> int:
    """Judge where needed, write the summaries, print them."""
    require_priced(settings)
    benchmarks = load_all(settings)
    settings = whole_judgments(settings, benchmarks)
    judge = None if settings.verdicts else load_judge(settings)
    others = [other_run(settings, benchmark) for benchmark in benchmarks]
    require_kept("--output", settings.output, Path.cwd())
    make_folder(settings.output)
    summaries = score_judge(settings, judge, benchmarks) if judge else [score_given(settings, benchmarks[0])]
    for benchmark, other, summary in zip(benchmarks, others, summaries, strict=True):
        if other is not None:
            found = against(settings, benchmark, other) | {"parsers": parsers_compared(settings, summary)}
            summary["compared"] = {"with": other_file(settings, benchmark), **found}
        write_summary(settings, summary)
    everything = {summary["benchmark"]: summary for summary in summaries}
    storage.write_json_atomic(storage.join(settings.output, "summary.json"), everything)
    for summary in summaries:
        print_summary(summary)
        print()
    print(f"summaries and verdicts: {settings.output}")
    return 0


def judging_cost(settings: EvaluateSettings, judge: Judge, judged: Judged) -> dict[str, Any]:
    """What the verdicts of one benchmark took."""
    prices = Prices(**settings.price.model_dump())
    endpoint = judge.engine.kind == "openai"
    return cost_of(judged.result, judged.benchmark, judged.answers, judged.timing, endpoint=endpoint, prices=prices)


def whole_judgments(settings: EvaluateSettings, benchmarks: list[Benchmark]) -> EvaluateSettings:
    """The settings by which a published parser sees all of a judgment: they all read on behind the first verdict.

    Raises InputError where it cannot be used.
    """
    name = settings.parser
    if name == LAST:
        return settings
    if settings.verdicts:
        raise InputError(f"--parser {name}: given verdicts have been read already")
    if settings.stop_after_verdict:
        raise InputError(
            f"--parser {name} reads whole judgments, and --stop_after_verdict would cut them: leave one out"
        )
    four = next((b.name for b in benchmarks if b.kind == "best_of" and name not in OF_LETTERS), None)
    if four:
        raise InputError(f"--parser {name} reads verdicts of two responses; {four} shows four")
    return settings.model_copy(update={"stop_after_verdict": False})


def require_priced(settings: EvaluateSettings) -> None:
    """Raise InputError for a price of what this judge does not use."""
    engine, price = settings.engine, settings.price
    if price.gpu_hour is not None and (engine.kind == "openai" or engine.device == "cpu"):
        used = "an endpoint" if engine.kind == "openai" else "engines on processors"
        raise InputError(f"--price.gpu_hour is the price of GPUs, and this judge is served by {used}")
    if price.prompt_tokens is not None and engine.kind == "vllm":
        raise InputError(
            "--price.prompt_tokens is the price of an endpoint's tokens; engines here have --price.gpu_hour"
        )
    if settings.verdicts and price != PriceSettings():
        raise InputError("--price: given verdicts say nothing of what they took")


def load_all(settings: EvaluateSettings) -> list[Benchmark]:
    """The benchmarks. Raises InputError for what no later step could work with."""
    if not settings.benchmark:
        raise InputError("--benchmark is missing")
    if settings.verdicts and len(settings.benchmark) != 1:
        raise InputError(f"--verdicts scores one benchmark; {len(settings.benchmark)} were given")
    names = [benchmark_name(spec) for spec in settings.benchmark]
    if len(set(names)) < len(names):
        raise InputError(f"two benchmarks are called {next(n for n in names if names.count(n) > 1)}; write NAME=PATH")
    # Verdicts of other runs may be of more rows than the limit takes: their ids are no mistake.
    others = settings.verdicts is not None or settings.compare is not None
    return [load_benchmark(spec, settings.limit, all_ids=others) for spec in settings.benchmark]


def write_summary(settings: EvaluateSettings, summary: dict[str, Any]) -> None:
    """summary.json of one benchmark, and what its leaderboard takes."""
    folder = storage.join(settings.output, summary["benchmark"])
    storage.write_json_atomic(storage.join(folder, "summary.json"), summary)
    if "rewardbench" in summary:
        entry = leaderboard_json(summary, settings.model or settings.verdicts or "")
        storage.write_json_atomic(storage.join(folder, "leaderboard.json"), entry)


def other_file(settings: EvaluateSettings, benchmark: Benchmark) -> str:
    """The verdict file that `--compare` names for this benchmark."""
    return storage.join(settings.compare or "", benchmark.name, VERDICTS)


def other_run(settings: EvaluateSettings, benchmark: Benchmark) -> list[Outcome] | None:
    """The run of `--compare`. Raises InputError, before any judging, where this run cannot be set against it."""
    if settings.compare is None:
        return None
    if not has_pairs(benchmark):
        raise InputError(f"--compare: {benchmark.name} has no response pairs to compare on")
    path = other_file(settings, benchmark)
    try:
        return joined(settings, benchmark, path)
    except InputError as fault:
        raise InputError(f"--compare: {fault}" if path in str(fault) else f"--compare: {path}: {fault}") from fault


def joined(settings: EvaluateSettings, benchmark: Benchmark, path: str) -> list[Outcome]:
    return join(benchmark, read_verdicts(path), settings.protocol, settings.seed)


def against(settings: EvaluateSettings, benchmark: Benchmark, other: list[Outcome]) -> dict[str, Any]:
    """This run (b) against another one (a) on the same rows: `metrics.compare`."""
    own = joined(settings, benchmark, storage.join(settings.output, benchmark.name, VERDICTS))
    return compare(other, own, settings.seed)


def parsers_compared(settings: EvaluateSettings, own: dict[str, Any]) -> dict[str, str | None]:
    """By which parser the verdicts of the other run (a) and of this one (b) were read; None where nobody says."""
    path = storage.join(settings.compare or "", own["benchmark"], "summary.json")
    other = storage.read_json(path) if storage.exists(path) else {}
    return {"a": parser_of(other), "b": parser_of(own)}


def parser_of(summary: dict[str, Any]) -> str | None:
    """The parser by which a summary's verdicts were read; None where they were given, or it tells no cost yet."""
    parser: str | None = summary.get("parser", LAST if "cost" in summary else None)
    return parser


def score_given(settings: EvaluateSettings, benchmark: Benchmark) -> dict[str, Any]:
    """The summary of a verdict file, joined by id."""
    assert settings.verdicts is not None
    summary = score_verdict_file(benchmark, settings.verdicts, seed=settings.seed, protocol=settings.protocol)
    kept = storage.join(settings.output, benchmark.name, VERDICTS)
    write_verdicts(kept, scored_records(benchmark, settings.verdicts))  # so that a later --compare finds it
    return summary


def score_judge(settings: EvaluateSettings, judge: Judge, benchmarks: list[Benchmark]) -> list[dict[str, Any]]:
    """Judge every benchmark, write its verdicts, and summarise its votes."""
    rated = next((benchmark.name for benchmark in benchmarks if benchmark.kind == "rated"), None)
    if rated and protocol_of(judge.mode).shows_both:
        raise InputError(f"{rated} has single responses with human scores: they need --mode pointwise")
    if settings.parser != LAST and not protocol_of(judge.mode).shows_both:
        raise InputError(f"--parser {settings.parser} reads verdicts of two responses; --mode pointwise gives scores")
    if settings.protocol == "official" and not protocol_of(judge.mode).shows_both:
        raise InputError("--protocol official is an order of two responses; --mode pointwise shows one")
    work = {storage.join(settings.output, benchmark.name): benchmark for benchmark in benchmarks}
    voting, summaries = voting_of(settings, settings.protocol), []
    for folder, judged in judge_all(settings, judge, work, settings.protocol, settings.max_engine_errors).items():
        save_verdicts(judge, judged, voting, folder, storage.join(folder, VERDICTS))
        summary = protocol_for(judge.mode, judged.benchmark).summary(judged.benchmark, judged.answers, voting)
        named = {} if settings.parser == LAST else {"parser": settings.parser}
        said = numbers_of(folder, judged.benchmark.rows)
        summaries.append(summary | named | said | {"cost": judging_cost(settings, judge, judged)})
    return summaries
