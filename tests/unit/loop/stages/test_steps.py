"""The order of the loop, and which setting makes which committed stage wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loop_runs import DEMO, ROOT, scripted

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import QUARANTINE
from ray_app.errors import InputError
from ray_app.generation.runner import StageResult
from ray_app.judging.judge import write_card
from ray_app.judging.registry import protocol_of
from ray_app.loop.checks import check_interrupted
from ray_app.loop.config import IterateSettings
from ray_app.loop.run import record_of
from ray_app.loop.stages import judgments
from ray_app.loop.stages.inputs import Inputs
from ray_app.loop.step import Step
from ray_app.loop.steps import judge_engine, steps_of
from ray_app.run.fingerprint import differences
from ray_app.run.folder import RunFolder, StageRecord, begin, commit, read_record
from ray_app.run.resume import pending
from ray_app.run.shards import ShardWriter

BASE: dict[str, Any] = {"iterations": 2, "instructions": {"heldout_fraction": 0.1}}
ONCE = ["instructions", "pairs", "evaluation validation", "evaluation heldout"]
EACH = ["judgments", "train set", "training", "evaluation validation", "evaluation heldout"]


def steps(settings: IterateSettings) -> list[Step]:
    return steps_of(settings, RunFolder(settings.run_uri))


def changed(settings: Any, **more: Any) -> set[str]:
    return changed_of(*of_both(settings, **more))


def invalid(settings: Any, **more: Any) -> list[str]:
    return invalid_of(*of_both(settings, **more))


def of_both(settings: Any, **more: Any) -> tuple[list[Step], list[Step]]:
    """Steps of two iterations without and with other settings."""
    return steps(settings(**BASE)), steps(settings(**{**BASE, **more}))


def changed_of(old: list[Step], new: list[Step]) -> set[str]:
    """Steps whose own settings or inputs differ, not those that only follow; by stage."""
    assert [str(step) for step in old] == [str(step) for step in new]
    found = set()
    for before, after in zip(old, new, strict=True):
        told = [d for d in differences(before.fingerprint, after.fingerprint) if d != "the stage before it changed"]
        if told:
            found.add(before.stage)
    return found


def invalid_of(old: list[Step], new: list[Step]) -> list[str]:
    """Steps that can no longer be used; the new run may have others too."""
    by_name = {str(step): step.fingerprint.digest for step in new}
    return [str(step) for step in old if by_name.get(str(step)) != step.fingerprint.digest]


def test_the_order_of_the_loop(settings: Any) -> None:
    found = steps(settings(**BASE))
    assert [str(step) for step in found] == [
        "instructions",
        "pairs",
        "iteration 0: evaluation validation",
        "iteration 0: evaluation heldout",
        *[f"iteration {i}: {name}" for i in (1, 2) for name in EACH],
    ]
    assert len({step.directory for step in found}) == len(found)
    folder = settings(**BASE).run_uri
    assert found[3].directory == f"{folder}/iter_00/evaluation/heldout"
    assert found[6].directory == f"{folder}/iter_01/training"


def test_a_revision_is_one_of_the_seed_only(settings: Any) -> None:
    """A checkpoint is a folder; with a revision its weights could not be loaded into living engines."""
    given = settings(**BASE, judge={"revision": "v2", "dtype": "float16"})
    folder = RunFolder(given.run_uri)
    assert judge_engine(given, folder, 0).revision == "v2"
    second = judge_engine(given, folder, 2)
    assert (second.model, second.revision, second.dtype) == (folder.checkpoint(2), None, "float16")
    (first, later) = [s.fingerprint.settings for s in steps(given) if s.stage == "judgments"]
    assert (first["judge.revision"], later["judge.revision"]) == ("v2", None)


def test_whose_engines_a_step_needs(settings: Any) -> None:
    given = settings(**BASE, first_judge=scripted("mixtral"))
    roles = {str(step): step.role for step in steps(given)}
    assert roles["instructions"] is None
    assert roles["pairs"] == "generator"
    assert roles["iteration 0: first judge evaluation validation"] == "first_judge"
    assert [roles[f"iteration {i}: judgments"] for i in (1, 2)] == ["first_judge", "judge"]
    assert {roles[f"iteration {i}: evaluation heldout"] for i in (0, 1, 2)} == {"judge"}
    assert roles["iteration 1: train set"] is roles["iteration 1: training"] is None
    classified = settings(**{**BASE, "instructions": {"classify": True, "heldout_fraction": 0.1}})
    assert steps(classified)[0].role == "generator"


def test_pairs_of_each_iteration(settings: Any) -> None:
    found = [str(step) for step in steps(settings(**BASE, pairs={"refresh": "each_iteration"}))]
    assert "pairs" not in found
    assert "iteration 0: evaluation heldout" not in found, "there are no pairs yet"
    assert [name for name in found if name.endswith("pairs")] == ["iteration 1: pairs", "iteration 2: pairs"]
    assert found.index("iteration 1: pairs") < found.index("iteration 1: judgments")


def fed(found: list[Step]) -> list[tuple[str, str]]:
    names = {step.directory: str(step) for step in found}
    return [(str(step), names[step.feeds.directory]) for step in found if step.feeds]


def test_pairs_feed_the_judgments_that_need_them(settings: Any) -> None:
    assert fed(steps(settings(**BASE))) == [("pairs", "iteration 1: judgments")]
    assert fed(steps(settings(**BASE, pairs={"refresh": "each_iteration"}))) == [
        ("iteration 1: pairs", "iteration 1: judgments"),
        ("iteration 2: pairs", "iteration 2: judgments"),
    ]
    assert fed(steps(settings(iterations=0))) == []


def test_a_first_judge_of_its_own_is_evaluated_too(settings: Any) -> None:
    other = [str(step) for step in steps(settings(**BASE, first_judge=scripted("mixtral")))]
    assert "iteration 0: first judge evaluation validation" in other
    same = [str(step) for step in steps(settings(**BASE, first_judge=scripted()))]
    assert not any("first judge" in name for name in same)
    assert invalid(settings, first_judge=scripted("mixtral"))[0] == "iteration 1: judgments"


def test_the_seed_with_other_prompts_is_evaluated_too(settings: Any, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("name: own\nuser: '{{ instruction }} {{ response_a }} {{ response_b }}: [[A]] or [[B]]?'\n")
    best_of = f"rewardbench2={ROOT / 'tests/fixtures/benchmarks/rewardbench2.jsonl'}"
    given = {"baseline_prompts": ["judge_rubric", str(own)], "test": [best_of]}
    found = {str(step): step for step in steps(settings(**BASE, evaluation=given))}
    baselines = {name: step for name, step in found.items() if step.stage == "baseline_evaluation"}
    # Best-of rows are asked with prompts of their own: the seed's figure is theirs.
    assert list(baselines) == [
        f"iteration 0: baseline evaluation {prompt}/{name}"
        for prompt in ("judge_rubric", "own")
        for name in ("validation", "heldout")
    ]
    seed = found["iteration 0: evaluation validation"].fingerprint
    rubric = baselines["iteration 0: baseline evaluation judge_rubric/validation"]
    assert [d.split(" was ")[0] for d in differences(seed, rubric.fingerprint)][:1] == ["setting prompts.judge"]
    assert rubric.fingerprint.settings["prompts.judge"] == load_prompt("judge_rubric").hash
    assert rubric.directory.endswith("/iter_00/baseline_evaluation/judge_rubric/validation")
    assert rubric.role == "judge"
    assert rubric.resumes
    assert invalid(settings, evaluation={"baseline_prompts": ["judge_rubric"]}) == [], "nothing else is other work"


@pytest.mark.parametrize(
    ("prompts", "named"),
    [
        (
            ["judge_rubric", "elsewhere/judge_rubric.yaml"],
            r"evaluation\.baseline_prompts: two of them are called judge_r",
        ),
        (["judge_single"], "judge_single: it never shows response_a"),
        (["nowhere"], "nowhere does not exist"),
    ],
)
def test_baseline_prompts_that_cannot_be_used_are_named(settings: Any, prompts: list[str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        steps(settings(evaluation={"baseline_prompts": prompts}))


def test_a_training_may_begin_with_the_judge_before_it(settings: Any) -> None:
    """The first begins with the seed in any case, so it is the same work."""
    assert changed(settings, train={"start": "previous"}) == {"training"}
    assert invalid(settings, train={"start": "previous"}) == [f"iteration 2: {name}" for name in EACH[2:]]
    by_name = {str(step): step.fingerprint for step in steps(settings(**BASE, train={"start": "previous"}))}
    first, second = by_name["iteration 1: training"], by_name["iteration 2: training"]
    assert second.settings["train.start"] == "previous"
    assert second.upstream == (by_name["iteration 2: train set"].digest, first.digest)
    assert "train.start" not in first.settings
    assert first.upstream == (by_name["iteration 1: train set"].digest,)


ALL = ["instructions", "pairs", *[f"iteration {i}: {name}" for i in (1, 2) for name in EACH]]
HELDOUT_0 = "iteration 0: evaluation heldout"
FROM_JUDGMENTS = [name for name in ALL if name.startswith("iteration")]
FROM_TRAIN_SET = [name for name in FROM_JUDGMENTS if name != "iteration 1: judgments"]
FROM_TRAINING = [name for name in FROM_TRAIN_SET if name != "iteration 1: train set"]
SERVED = {"judgments", "evaluation"}
EVALUATIONS = [f"iteration {i}: {name}" for i in (0, 1, 2) for name in EACH[3:]]


@pytest.mark.parametrize(
    ("more", "own", "following"),
    [
        ({"instructions": {"max_characters": 9, **BASE["instructions"]}}, {"instructions"}, [*ALL, HELDOUT_0]),
        ({"limit": 5}, {"instructions"}, [*ALL, HELDOUT_0]),
        ({"pairs": {"strategy": "worse_response"}}, {"pairs"}, [*ALL[1:], HELDOUT_0]),
        ({"pairs": {"sampling": {"temperature": 1.0}}}, {"pairs"}, [*ALL[1:], HELDOUT_0]),
        ({"generator": scripted("other")}, {"pairs"}, [*ALL[1:], HELDOUT_0]),
        ({"judging": {"samples": 3}}, {"judgments"}, FROM_JUDGMENTS),
        ({"judging": {"sampling": "all"}}, {"judgments"}, FROM_JUDGMENTS),
        ({"judging": {"generation": {"top_p": 0.5}}}, {"judgments"}, FROM_JUDGMENTS),
        ({"judging": {"balance": False}}, {"train_set"}, FROM_TRAIN_SET),
        ({"judging": {"max_draws": 2}}, {"train_set"}, FROM_TRAIN_SET),
        ({"judging": {"sampling": "all", "min_pass_rate": 0.2}}, {"judgments", "train_set"}, FROM_JUDGMENTS),
        ({"train": {"lr": 1e-3}}, {"training"}, FROM_TRAINING),
        ({"train": {"recipe": "dpo"}}, {"train_set", "training"}, FROM_TRAIN_SET),
        ({"train": {"dpo": {"nll_mean": "pairs"}}}, {"training"}, FROM_TRAINING),
        ({"evaluation": {"votes": 3}}, {"evaluation"}, EVALUATIONS),
        ({"evaluation": {"limit": 3}}, {"evaluation"}, EVALUATIONS),
        ({"evaluation": {"generation": {"temperature": 0.5}}}, {"evaluation"}, EVALUATIONS),
        ({"generator": {"revision": "v2"}}, {"pairs"}, [*ALL[1:], HELDOUT_0]),
        ({"generator": {"dtype": "float16"}}, {"pairs"}, [*ALL[1:], HELDOUT_0]),
        ({"generator": {"vllm": {"hf_overrides": {"rope_theta": 2}}}}, {"pairs"}, [*ALL[1:], HELDOUT_0]),
        ({"judge": {"vllm": {"quantization": "fp8"}}}, SERVED, [*FROM_JUDGMENTS, *EVALUATIONS[:2]]),
        ({"judge": {"dtype": "float16"}}, SERVED, [*FROM_JUDGMENTS, *EVALUATIONS[:2]]),
        ({"judge": {"max_model_len": 999}}, SERVED, [*FROM_JUDGMENTS, *EVALUATIONS[:2]]),
        (
            {"judge": {"chat_template_kwargs": {"enable_thinking": False}}},
            {*SERVED, "training"},
            [*FROM_JUDGMENTS, *EVALUATIONS[:2]],
        ),
        ({"judge": {"revision": "v2"}}, {*SERVED, "training"}, [*FROM_JUDGMENTS, *EVALUATIONS[:2]]),
        ({"prompts": {"judge": "judge_pairwise"}}, {"judgments", "evaluation"}, [*FROM_JUDGMENTS, *EVALUATIONS[:2]]),
        (
            {"prompts": {"modify_instruction": str(ROOT / "tests/fixtures/prompts/other_wording.yaml")}},
            {"pairs"},
            [*ALL[1:], HELDOUT_0],
        ),
    ],
)
def test_a_setting_invalidates_its_stage_and_what_follows(
    settings: Any, more: dict[str, Any], own: set[str], following: list[str]
) -> None:
    old, new = of_both(settings, **more)
    assert changed_of(old, new) == own
    assert set(invalid_of(old, new)) == set(following)


@pytest.mark.parametrize("more", [{"pairs_per_prompt": 2}, {"unparsed_as_wrong": True}])
def test_what_preferences_are_made_of_makes_another_set(settings: Any, more: dict[str, Any]) -> None:
    before = {str(s): s.fingerprint for s in steps(settings(**BASE, train={"recipe": "dpo"}))}
    after = {str(s): s.fingerprint for s in steps(settings(**BASE, train={"recipe": "dpo", "dpo": more}))}
    (name,) = more
    told = differences(before["iteration 1: train set"], after["iteration 1: train set"])
    assert told == [f"setting train.dpo.{name} was not set, is now {more[name]!r}"]
    assert before["iteration 1: judgments"] == after["iteration 1: judgments"]
    sets = [
        next(step.fingerprint for step in steps(settings(**BASE, train=train)) if step.stage == "train_set")
        for train in ({}, {"dpo": more})
    ]
    assert sets[0] == sets[1], "nothing of it concerns SFT"


def test_a_judge_that_reasons_turns_the_stop_off_wherever_it_holds(settings: Any, tmp_path: Path) -> None:
    """One rule for judging, training and evaluation, so all of them are other work then."""
    thinking = {"judge": {"chat_template_kwargs": {"enable_thinking": True}}}
    assert changed(settings, **thinking) == {"judgments", "training", "evaluation"}
    for made in (settings(**thinking), settings(first_judge={**scripted(), **thinking["judge"]})):
        assert not made.stop_after_verdict
        assert stops(made, "pairwise") == [(), ()]
        assert stops(made, "pointwise") == [(), ()]
        assert card(made, tmp_path)["stop_after_verdict"] is False
        assert judgments.settings_of(made, Inputs(made), "j")["judging"]["stop_after_verdict"] is False
    off = settings(judge={"chat_template_kwargs": {"enable_thinking": False}})
    assert stops(off, "pairwise") == [("[[A]]", "[[B]]"), ("[[A]]", "[[B]]")]
    assert card(off, tmp_path)["stop_after_verdict"] is True


def stops(made: Any, mode: str) -> list[tuple[str, ...]]:
    """What ends a text in rejection sampling, and where gold sets are judged."""
    inputs, protocol = Inputs(made), protocol_of(mode)
    judge = inputs.judge(made.judge, "j")
    programs = (
        protocol.sampling_program(judge, made.judging, 0, 1),
        protocol.voting_program(judge, inputs.voting(1)),
    )
    return [program.sampling.stop for program in programs]  # type: ignore[attr-defined]


def card(made: Any, folder: Path) -> dict[str, Any]:
    """judge.json of a run's checkpoint."""
    more = dict.fromkeys(("run", "iteration", "seed_model", "parser", "generation", "train_set"))
    write_card(str(folder), Inputs(made).judge(made.judge, ""), **more)
    found: dict[str, Any] = json.loads((folder / "judge.json").read_text())
    return found


@pytest.mark.parametrize(
    "more",
    [
        {"iterations": 5},
        {"evaluation": {"test": [f"more={DEMO / 'test.jsonl'}", "rewardbench"]}},
        {"generator": {"replicas": 4, "cpus": 2, "max_num_seqs": 99, "tensor_parallel": 2, "executor": "ray"}},
        {"judge": {"replicas": 4, "gpu_memory_utilization": 0.5, "request_timeout_s": 9}},
        {"judge": {"vllm": {"max_num_batched_tokens": 4096, "block_size": 32, "enforce_eager": True}}},
        {"train": {"tracking": {"to": ["wandb"]}, "max_failures": 9, "timeout_s": 5}},
        {"shards": {"max_rows": 7}},
        {"pools": {"side_by_side": "never"}},
        {"ray": {"num_cpus": 2}},
        {"prompts": {"classify": "worse_response", "judge_single": "worse_response", "worse_response": "classify"}},
        {"instructions": {"classify_sampling": {"max_tokens": 99}, **BASE["instructions"]}},
    ],
    ids=lambda more: "-".join(more),
)
def test_more_work_placement_and_unused_settings_invalidate_nothing(settings: Any, more: dict[str, Any]) -> None:
    assert invalid(settings, **more) == []


def test_fewer_iterations_or_benchmarks_invalidate_nothing_of_what_is_left(settings: Any) -> None:
    full = {str(s): s.fingerprint.digest for s in steps(settings(**BASE))}
    less = steps(settings(**{**BASE, "iterations": 1}, evaluation={"validation": None, "heldout": False}))
    assert [str(step) for step in less] == ["instructions", "pairs", *[f"iteration 1: {name}" for name in EACH[:3]]]
    assert {str(s): s.fingerprint.digest for s in less}.items() <= full.items()


def test_the_content_of_a_file_counts_and_the_file_is_named(settings: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"id": "1", "instruction": "a"}) + "\n")
    gold = tmp_path / "gold.jsonl"
    gold.write_text((DEMO / "validation.jsonl").read_text())
    given = {
        "instructions": {"source": str(source)},
        "evaluation": {"validation": f"validation={gold}"},
    }
    before = {str(s): s.fingerprint for s in steps(settings(**given))}
    source.write_text(json.dumps({"id": "1", "instruction": "b"}) + "\n")
    gold.write_text((DEMO / "test.jsonl").read_text())
    after = {str(s): s.fingerprint for s in steps(settings(**given))}
    assert differences(before["instructions"], after["instructions"]) == [f"the content of {source} changed"]
    told = differences(before["iteration 0: evaluation validation"], after["iteration 0: evaluation validation"])
    assert told == [f"the content of validation={gold} changed"]


def test_a_file_that_is_named_alone_counts_by_its_content_too(settings: Any, tmp_path: Path) -> None:
    def inputs_of(spec: str) -> dict[str, str]:
        return Inputs(settings()).content(spec)

    gold = tmp_path / "gold.jsonl"
    gold.write_text("a")
    before = inputs_of(str(gold))
    gold.write_text("b")
    assert inputs_of(str(gold)) != before
    assert inputs_of("rewardbench") == {"rewardbench": "rewardbench"}
    assert inputs_of("judgebench=ORG/NAME") == {"judgebench=ORG/NAME": "judgebench=ORG/NAME"}


def committed(settings: IterateSettings, upto: int) -> None:
    for step in steps(settings)[:upto]:
        result = StageResult(extra={"decontaminated": list(settings.benchmarks)})
        commit(step.directory, record_of(step, result, "2024-08-05T00:00:00+00:00"))


def left(settings: IterateSettings) -> list[str]:
    found = steps(settings)
    return [str(found[i]) for i in pending([(str(s), read_record(s.directory), s.fingerprint) for s in found])]


def test_committed_work_is_kept_or_named(settings: Any) -> None:
    base = settings(**BASE)
    committed(base, 9)
    assert left(base) == [f"iteration 2: {name}" for name in EACH]
    more = settings(**{**BASE, "iterations": 3}, evaluation={"test": [f"more={DEMO / 'test.jsonl'}"]})
    assert left(more)[:3] == ["iteration 0: evaluation more", "iteration 1: evaluation more", "iteration 2: judgments"]
    with pytest.raises(InputError, match=r"setting train.lr was 0.0001, is now 0.001: .*'iteration 1: training'"):
        left(settings(**BASE, train={"lr": 1e-3}))
    with pytest.raises(InputError, match=r"setting pairs.strategy was .*'pairs'"):
        left(settings(**BASE, pairs={"strategy": "worse_response"}))


def interrupted(settings: IterateSettings, name: str) -> Step:
    """Begin a stage, close a shard, and leave it uncommitted."""
    (step,) = [step for step in steps(settings) if str(step) == name]
    begin(step.directory, step.fingerprint)
    with ShardWriter(step.directory, QUARANTINE) as writer:
        writer.quarantine([{"id": "a", "stage": step.stage, "reason": "refused", "detail": ""}])
    return step


def test_a_stage_that_closed_no_shard_yet_may_be_begun_anew(settings: Any) -> None:
    base = settings(**BASE)
    (step,) = [step for step in steps(base) if str(step) == "iteration 1: judgments"]
    begin(step.directory, step.fingerprint)
    check_interrupted(steps(settings(**BASE, judging={"samples": 3})))


def test_an_interrupted_stage_goes_on_only_with_the_same_settings(settings: Any) -> None:
    base = settings(**BASE)
    step = interrupted(base, "iteration 1: judgments")
    check_interrupted(steps(base))
    check_interrupted(steps(settings(**BASE, judge={"replicas": 4, "max_num_seqs": 9})))
    told = r"setting judging\.samples was 15, is now 3: the interrupted stage 'iteration 1: judgments' .* remove "
    with pytest.raises(InputError, match=told + step.directory):
        check_interrupted(steps(settings(**BASE, judging={"samples": 3})))
    with pytest.raises(InputError, match=r"the stage before it changed: the interrupted stage 'iteration 1: judgm"):
        check_interrupted(steps(settings(**BASE, pairs={"strategy": "worse_response"})))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("pairs", {"pairs": {"max_similarity": 0.5}}),
        ("iteration 0: evaluation validation", {"evaluation": {"votes": 3}}),
        ("iteration 2: evaluation heldout", {"evaluation": {"generation": {"temperature": 0.5}}}),
        ("instructions", {"instructions": {"classify": True, **BASE["instructions"]}}),
    ],
)
def test_stages_that_resume_refuse_other_settings(settings: Any, name: str, more: dict[str, Any]) -> None:
    interrupted(settings(**BASE), name)
    with pytest.raises(InputError, match=f"the interrupted stage '{name}'"):
        check_interrupted(steps(settings(**{**BASE, **more})))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("instructions", {"limit": 3}),
        ("iteration 1: train set", {"judging": {"balance": False}}),
        ("iteration 1: training", {"train": {"lr": 1e-3}}),
    ],
)
def test_stages_that_start_from_nothing_take_any_setting(settings: Any, name: str, more: dict[str, Any]) -> None:
    interrupted(settings(**BASE), name)
    check_interrupted(steps(settings(**BASE, **more)))


def test_a_record_says_what_a_step_did(settings: Any) -> None:
    step = steps(settings(**BASE))[0]
    record = record_of(step, StageResult(5, 3, {"duplicate": 2}, 10, 20, 1.23456), "now")
    assert isinstance(record, StageRecord)
    assert (record.stage, record.rows_in, record.rows_out, record.quarantined) == (
        "instructions",
        5,
        3,
        {"duplicate": 2},
    )
    assert (record.seconds, record.fingerprint) == (1.235, step.fingerprint)
