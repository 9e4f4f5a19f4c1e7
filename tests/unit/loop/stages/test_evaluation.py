"""Evaluation: which sets are judged, where held-out pairs stand, and what is written of a set."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from loop_runs import DEMO

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import HELDOUT, PAIRS, TRAIN, pack_text
from ray_app.base.settings_parts import PriceSettings
from ray_app.benchmarks import load_benchmark
from ray_app.engine.actor import EngineActor
from ray_app.engine.base import Work, alone
from ray_app.engine.settings import EndpointSettings, EngineSettings
from ray_app.errors import InputError
from ray_app.generation.runner import Job, Runner, StageResult
from ray_app.judging.pairwise import HEADLINE
from ray_app.loop.run import record_of
from ray_app.loop.stages import evaluation
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.loop.steps import steps_of
from ray_app.metrics.cost import Prices
from ray_app.run import metrics_log
from ray_app.run.folder import commit
from ray_app.run.shards import ShardWriter, row_counts
from ray_app.run.storage import list_files, read_parquet


class InProcess(Runner):
    """Runs a program in this process, as an engine actor runs it; no Ray."""

    def dataset(self, directory: str) -> Any:
        files = list_files(directory, "shard-*.parquet")
        return [row for file in files for row in read_parquet(file).to_pylist()]

    def run(self, job: Job) -> StageResult:
        actor = EngineActor(job.engine, job.role)
        work = Work(job.program, job.stage, job.iteration, job.engine.model)
        results = asyncio.run(actor.run([work], alone(list(job.source))))
        with ShardWriter(job.directory, job.schema) as writer:
            for result in results:
                writer.add(result.rows)
                writer.quarantine(result.quarantine)
        rows, quarantined = row_counts(job.directory)
        return StageResult(job.total, rows, quarantined, extra={"weights": "reloaded", "first_answer": 1000.5})


def pair(number: int, split: str, **more: Any) -> dict[str, Any]:
    empty = {name: None for name in PAIRS.names}
    identity = f"{number:016x}"
    texts = {"instruction": f"Question {number}?", "chosen": f"GOOD {number}", "rejected": f"poor {number}"}
    return {**empty, "pair_id": identity, "split": split, **texts, **more}


def judged(context: Any, set_name: str, spec: str, **settings: Any) -> tuple[StageResult, Path]:
    """The result and the folder of one set, judged by a scripted engine."""
    made: Context = context(**settings)
    run = Context(made.settings, made.folder, InProcess(made.runner.pools), made.inputs)
    directory = run.folder.join(run.folder.stage_dir("evaluation", 1), set_name)
    judge = run.inputs.judge(made.settings.judge, "the judge")
    (result,) = evaluation.ask(run, 1, [evaluation.NamedSet(set_name, spec, directory)], judge)()
    return result, Path(directory)


def verdicts(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "verdicts.jsonl").read_text().splitlines()]


def test_sets_are_named_validation_first(settings: Any) -> None:
    tests = ["rewardbench", "judgebench=some/file.jsonl", "data/pandalm.jsonl", "dir/x=y.jsonl", "hf:org/pairs:test"]
    given = settings(
        evaluation={"validation": "helpsteer2=v.jsonl", "test": tests}, instructions={"heldout_fraction": 0.1}
    )
    assert list(evaluation.sets_of(given).items()) == [
        ("validation", "helpsteer2=v.jsonl"),
        ("rewardbench", "rewardbench"),
        ("judgebench", "judgebench=some/file.jsonl"),
        ("pandalm", "data/pandalm.jsonl"),
        ("x=y", "dir/x=y.jsonl"),
        ("pairs", "hf:org/pairs:test"),
        ("heldout", ""),
    ]


@pytest.mark.parametrize(
    ("part", "fraction", "names"),
    [
        ({"heldout": True}, 0, ["validation"]),
        ({"heldout": False}, 0.1, ["validation"]),
        ({"validation": None}, 0.1, ["heldout"]),
        ({"validation": None}, 0, []),
    ],
)
def test_held_out_pairs_are_a_set_where_there_are_some(
    settings: Any, part: dict[str, Any], fraction: float, names: list[str]
) -> None:
    given = settings(evaluation=part, instructions={"heldout_fraction": fraction})
    assert list(evaluation.sets_of(given)) == names


def test_inputs_are_contents_and_ids(settings: Any, tmp_path: Path) -> None:
    def content(spec: str) -> dict[str, str]:
        return Inputs(settings()).content(spec)

    gold = tmp_path / "gold.jsonl"
    gold.write_text("one\n")
    first = content(f"set={gold}")
    assert list(first) == [f"set={gold}"]
    bare = content(str(gold))
    assert set(bare.values()) == set(first.values())
    gold.write_text("two\n")
    assert content(f"set={gold}") != first
    assert content(str(gold)) != bare
    assert content("rewardbench") == {"rewardbench": "rewardbench"}
    assert content("set=hf:a/b") == {"set=hf:a/b": "set=hf:a/b"}
    assert content("") == {}


def test_the_program_votes_as_the_settings_say(settings: Any) -> None:
    def program(made: Any, iteration: int) -> Any:
        inputs = Inputs(made)
        return made.protocol.voting_program(inputs.judge(made.judge, "j"), inputs.voting(iteration))

    greedy = program(settings(), 2)
    assert (greedy.mode, greedy.samples, greedy.sampling.temperature, greedy.iteration) == ("votes", 1, 0, 2)
    assert greedy.sampling.stop == ("[[A]]", "[[B]]")
    part = {"votes": 32, "early_stop": False, "generation": {"temperature": 0.7}}
    votes = program(settings(evaluation=part, judging={"stop_after_verdict": False}), 1)
    assert (votes.samples, votes.early_stop, votes.sampling.temperature, votes.sampling.stop) == (32, False, 0.7, ())


def test_held_out_pairs_have_gold_by_construction_and_a_side_by_hash(context: Any) -> None:
    run = context()
    turns: Any = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    pairs = [pair(n, HELDOUT if n % 4 else TRAIN, category="other" if n == 1 else None) for n in range(40)]
    pairs[2]["instruction"] = pack_text(turns)
    with ShardWriter(run.folder.stage_dir("pairs"), PAIRS, max_rows=7) as writer:
        for one in pairs:
            writer.add([one])
    found = evaluation.heldout(run, 1)
    assert [row.id for row in found.rows] == [p["pair_id"] for p in pairs if p["split"] == HELDOUT]
    assert (found.name, found.n, found.n_in) == ("heldout", 30, 30)
    for row in found.rows:
        better, worse = (row.response_a, row.response_b) if row.label == "A" else (row.response_b, row.response_a)
        assert (str(better)[:4], str(worse)[:4]) == ("GOOD", "poor")
    labels = [row.label for row in found.rows]
    assert 10 <= labels.count("A") <= 20, "the better response stands on both sides"
    assert [row.subset for row in found.rows][:2] == ["other", "heldout"]
    assert found.rows[1].instruction == turns
    assert len({row.group for row in found.rows}) == 30


def test_held_out_pairs_with_two_instructions_are_told_by_their_similarity(context: Any) -> None:
    with ShardWriter(context().folder.stage_dir("pairs"), PAIRS) as writer:
        for n in range(6):
            more = {"instruction": f"Name a bird of kind {n}.", "modified_instruction": "Name a fish." if n else ""}
            writer.add([pair(n, HELDOUT, **more)])
    rows = evaluation.heldout(context(), 1).rows
    assert [row.similarity is None for row in rows] == [True] + [False] * 5
    assert all(0 < (row.similarity or 1) < 1 for row in rows[1:])
    result, directory = judged(context, "heldout", "", judge={"script": {"p": [1.0]}})
    summary = json.loads((directory / "summary.json").read_text())
    assert sum(part["accuracy"]["n"] for part in summary["similarity_thirds"]) == 5
    assert result.extra["headline"]["accuracy_least_similar"] == summary["similarity_thirds"][0]["accuracy"]


def test_held_out_pairs_are_written_for_the_judges_of_other_runs(context: Any) -> None:
    """With their mirrors and groups: `evaluate` then measures on them what the loop does."""
    pairs = [pair(n, HELDOUT, modified_instruction="Name a fish.") for n in range(4)]
    for one, other in ((0, 1), (2, 3)):
        pairs[one] |= {"mirror": pairs[other]["pair_id"], "group": f"g{one}"}
        pairs[other] |= {"mirror": pairs[one]["pair_id"], "group": f"g{one}"}
    with ShardWriter(context().folder.stage_dir("pairs"), PAIRS) as writer:
        writer.add(pairs)
    _, directory = judged(context, "heldout", "", judge={"script": {"p": [1.0]}})
    read = load_benchmark(f"other={directory / 'rows.jsonl'}")
    assert list(read.rows) == evaluation.heldout(context(), 1).rows
    assert not read.faulty
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["overall"]["mirrored_accuracy"]["n"] == 2
    assert summary["explanations"]["bare_verdicts"] is not None


def test_pairs_of_people_and_pairs_that_were_made_are_subsets_of_their_own(context: Any) -> None:
    pairs = [pair(n, HELDOUT, strategy="given" if n < 2 else "modified_instruction") for n in range(5)]
    with ShardWriter(context().folder.stage_dir("pairs"), PAIRS) as writer:
        writer.add(pairs)
    subsets = [row.subset for row in evaluation.heldout(context(), 1).rows]
    assert subsets == ["given"] * 2 + ["modified_instruction"] * 3


def test_a_run_without_held_out_pairs_has_no_headline(context: Any) -> None:
    with ShardWriter(context().folder.stage_dir("pairs"), PAIRS) as writer:
        writer.add([pair(1, TRAIN)])
    result, directory = judged(context, "heldout", "")
    assert result.extra == {"set": "heldout", "headline": None}
    assert not directory.exists()


def test_a_set_is_judged_and_written(context: Any) -> None:
    judge = {"script": {"p": [1.0], "gold_marker": "is"}}
    result, directory = judged(context, "validation", f"validation={DEMO / 'validation.jsonl'}", judge=judge)
    summary = json.loads((directory / "summary.json").read_text())
    assert result.extra["set"] == "validation"
    assert result.extra["headline"]["accuracy"] == summary["overall"]["accuracy"]
    assert set(result.extra["headline"]) < set(HEADLINE)
    assert summary["n"] == 8, "the limit of the settings"
    wanted = [json.loads(line)["id"] for line in (DEMO / "validation.jsonl").read_text().splitlines()][:8]
    assert [record["id"] for record in verdicts(directory)] == wanted


def test_what_the_judge_says_besides_its_verdicts_is_in_the_metrics_too(context: Any) -> None:
    """Two orders of eight rows, each with twelve words: the numbers that the metrics line of a set gets."""
    judge = {"script": {"p": [1.0], "words": [12]}}
    result, directory = judged(context, "validation", f"validation={DEMO / 'validation.jsonl'}", judge=judge)
    summary = json.loads((directory / "summary.json").read_text())
    assert result.extra["explanations"] == summary["explanations"]
    assert result.extra["explanations"]["explanation_words_median"] == 12
    assert result.extra["explanations"]["bare_verdicts"] == 0


def test_a_baseline_is_asked_with_its_own_prompt_and_says_which(context: Any) -> None:
    made: Context = context(evaluation={"baseline_prompts": ["judge_rubric"]}, judge={"script": {"p": [1.0]}})
    run = Context(made.settings, made.folder, InProcess(made.runner.pools), made.inputs)
    steps = steps_of(made.settings, made.folder, made.inputs)
    (step,) = (step for step in steps if step.stage == "baseline_evaluation")
    result = step.run(run)
    assert (result.extra["prompt"], result.extra["set"], result.extra["change"]) == ("judge_rubric", "validation", None)
    assert len(verdicts(Path(step.directory))) == 8
    commit(step.directory, record_of(step, result, "now"))
    assert metrics_log.rebuild(made.folder.uri, []) == []
    kept = json.loads((Path(made.folder.uri) / "metrics.jsonl").read_text())
    assert kept["stage"] == "baseline_evaluation", "a command without it still knows that it was judged"
    asked: Any = run.inputs.judge(made.settings.judge, "j", run.inputs.baselines["judge_rubric"])
    assert asked.prompt == load_prompt("judge_rubric")
    assert run.inputs.judge(made.settings.judge, "j").prompt == load_prompt("judge_pairwise_small")


def test_seconds_from_the_checkpoint_to_the_first_answer(context: Any) -> None:
    """Known where this process wrote the checkpoint; a run that was continued had stood still."""
    made: Context = context()
    spec = f"validation={DEMO / 'validation.jsonl'}"
    run = Context(made.settings, made.folder, InProcess(made.runner.pools), made.inputs)
    judge = run.inputs.judge(made.settings.judge, "the judge")

    def sets(folder: str) -> list[evaluation.NamedSet]:
        return [evaluation.NamedSet("validation", spec, str(Path(made.folder.uri) / folder))]

    (resumed,) = evaluation.ask(run, 1, sets("resumed"), judge)()
    assert "checkpoint_to_first_answer_s" not in resumed.extra
    run.written[made.settings.judge.model] = 990.0
    (result,) = evaluation.ask(run, 1, sets("one"), judge)()
    assert result.extra["checkpoint_to_first_answer_s"] == 10.5
    assert result.extra["weights"] == "reloaded"
    another = run.inputs.judge(made.settings.judge.of_checkpoint("another"), "another judge")
    (other,) = evaluation.ask(run, 2, sets("other"), another)()
    assert "checkpoint_to_first_answer_s" not in other.extra


def test_figures_are_computed_when_they_are_asked_for(context: Any) -> None:
    """So that the next stage can begin as soon as the engines have answered."""
    made: Context = context()
    directory = Path(made.folder.uri) / "one"
    sets = [evaluation.NamedSet("validation", f"validation={DEMO / 'validation.jsonl'}", str(directory))]
    run = Context(made.settings, made.folder, InProcess(made.runner.pools), made.inputs)
    results = evaluation.ask(run, 1, sets, run.inputs.judge(made.settings.judge, "the judge"))
    assert list(directory.glob("shard-*.parquet"))
    assert not (directory / "summary.json").exists()
    (result,) = results()
    assert result.extra["headline"]["accuracy"]
    assert (directory / "summary.json").exists()


def test_early_stopped_votes_have_a_vote_accuracy_only(context: Any) -> None:
    part = {"votes": 5, "limit": 8}
    spec = f"validation={DEMO / 'validation.jsonl'}"
    result, directory = judged(context, "validation", spec, evaluation=part, judge={"script": {"p": [1.0]}})
    assert "accuracy" not in result.extra["headline"]
    assert "vote_accuracy" in result.extra["headline"]
    assert verdicts(directory)[0]["orders"]["ab"]["partial"]
    part = {**part, "early_stop": False}
    result, _ = judged(context, "validation", spec, evaluation=part, name="all")
    assert {"accuracy", "vote_accuracy"} <= set(result.extra["headline"])


@pytest.mark.parametrize("votes", [1, 5])
def test_a_set_of_which_no_row_fits_counts_as_unparsed(context: Any, votes: int) -> None:
    """Every row too long for the context: n is that of the file, and the headline has a figure."""
    spec = f"validation={DEMO / 'validation.jsonl'}"
    judge = {"max_model_len": 20}
    result, directory = judged(context, "validation", spec, judge=judge, evaluation={"votes": votes, "limit": 8})
    assert result.quarantined == {"prompt_too_long": 16}
    headline = result.extra["headline"]
    assert headline["accuracy"]["value"] == 0
    assert headline["unparsed_rate"]["value"] == 1
    assert headline["accuracy"]["n"] == 8
    assert {record["quarantined"] for record in verdicts(directory)} == {"prompt_too_long"}
    assert len(verdicts(directory)) == 8


def test_human_scores_of_single_responses_are_no_set_of_the_loop(settings: Any) -> None:
    given = settings(evaluation={"test": ["helpsteer2_ratings=scores"]})
    with pytest.raises(InputError, match="helpsteer2_ratings=scores has single responses with human scores"):
        evaluation.sets_of(given)


def test_the_summary_of_a_set_says_what_it_took(context: Any) -> None:
    _, directory = judged(context, "demo", f"demo={DEMO / 'validation.jsonl'}")
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["cost"]["verdicts"] == summary["n"] == 8
    assert "price" not in summary["cost"]["per_1000"]


def test_the_price_of_the_settings_is_in_the_summary_and_the_metrics(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight verdicts in 28.8 seconds of one GPU, whose hour costs 2: 1,000 of them take that hour, and cost 2."""
    untimed = InProcess.run
    monkeypatch.setattr(InProcess, "run", lambda self, job: dataclasses.replace(untimed(self, job), seconds=28.8))
    on_gpu = {"device": "cuda", "script": {"p": [1.0]}}
    spec = f"demo={DEMO / 'validation.jsonl'}"
    result, directory = judged(context, "demo", spec, judge=on_gpu, evaluation={"price": {"gpu_hour": 2}})
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["cost"]["verdicts"] == 8
    assert summary["cost"]["per_1000"]["price"] == pytest.approx(2)
    assert result.extra["per_1000"] == summary["cost"]["per_1000"]


def test_a_price_counts_for_the_judge_that_it_fits() -> None:
    """Of one run the first judge may be an endpoint's, and those that it trains engines on GPUs."""
    on_gpus, on_cpu = EngineSettings(model="m", device="cuda"), EngineSettings(model="m", device="cpu")
    endpoint = EngineSettings(model="m", kind="openai", endpoint=EndpointSettings(base_url="http://x/v1"))
    hour, tokens = PriceSettings(gpu_hour=2), PriceSettings(prompt_tokens=1, completion_tokens=3)
    assert evaluation.prices_of(hour, on_gpus) == Prices(gpu_hour=2)
    assert evaluation.prices_of(tokens, endpoint) == Prices(prompt_tokens=1, completion_tokens=3)
    for price, engine in ((hour, endpoint), (hour, on_cpu), (tokens, on_gpus)):
        assert evaluation.prices_of(price, engine) == Prices()
