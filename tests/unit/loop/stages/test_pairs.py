"""The pair stage's work by strategy: what its source, key and fingerprint are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.schema import INSTRUCTIONS
from ray_app.engine.scripted import ScriptedEngine
from ray_app.errors import InputError, RunError
from ray_app.generation.programs.neighbour import NeighbourProgram
from ray_app.generation.programs.pair import PairProgram
from ray_app.generation.runner import StageResult
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages import instructions, pairs
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.shards import ShardWriter, shard_files
from ray_app.run.storage import read_parquet

TEXTS = [
    "Name a bird that sings at night.",
    "Name a bird that sings by day.",
    "How do I cook a soup of lentils?",
    "How do I cook a soup of beans?",
    "Prove that two is prime.",
]


def with_instructions(context: Callable[..., Context], texts: list[str] = TEXTS, **part: Any) -> Context:
    near = {"max_similarity": 0.9}  # of so few texts most words are rare
    more = {name: part.pop(name) for name in ("name", "generator", "evaluation", "instructions") if name in part}
    run = context(pairs={"strategy": "neighbour_instruction", "neighbours": near, **part}, **more)
    empty = {name: None for name in INSTRUCTIONS.names}
    with ShardWriter(run.folder.stage_dir("instructions"), INSTRUCTIONS, max_rows=2) as writer:
        for number, text in enumerate(texts):
            writer.add([{**empty, "instruction_id": f"i{number}", "text": text, "split": "train"}])
    return run


def test_couples_are_written_once_and_kept(context: Callable[..., Context]) -> None:
    """An attempt that goes on couples as the one before, whatever a newer library would find."""
    run = with_instructions(context)
    directory = run.folder.stage_dir("pairs")
    file = f"{pairs.coupled_rows(run, directory)}/shard-00000.parquet"
    rows = read_parquet(file).to_pylist()
    assert sorted(sorted((row["first"]["instruction_id"], row["second"]["instruction_id"])) for row in rows) == [
        ["i0", "i1"],
        ["i2", "i3"],
    ]
    assert len({row["group"] for row in rows}) == 2
    with_instructions(context, ["another", "one"])  # further shards of instructions
    assert pairs.coupled_rows(run, directory) == file.rpartition("/")[0]
    assert read_parquet(file).to_pylist() == rows


def test_a_couple_is_the_unit_of_neighbours(context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    run = with_instructions(context)
    monkeypatch.setattr(Context, "dataset", lambda _, directory: directory)  # no Ray here
    job = pairs.job(run, None)
    assert (job.key, job.total) == (("group",), 2)
    assert isinstance(job.program, NeighbourProgram)
    plain = with_instructions(context, strategy="modified_instruction", mirror=True)
    job = pairs.job(plain, None)
    assert job.key == ("instruction_id",)
    assert isinstance(job.program, PairProgram)
    assert job.program.mirror


def test_no_neighbours_stop_the_run_with_what_was_asked(context: Callable[..., Context]) -> None:
    run = with_instructions(context, ["Name a bird.", "Prove that two is prime!"])
    with pytest.raises(RunError, match=r"no two of 2 instructions are neighbours: .* a similarity of 0.1 to 0.9"):
        pairs.coupled_rows(run, run.folder.stage_dir("pairs"))


def test_newer_settings_are_covered_where_they_do_something(settings: Callable[..., IterateSettings]) -> None:
    def covered(**part: Any) -> dict[str, Any]:
        made = settings(pairs=part)
        return dict(pairs.settings_of(made, Inputs(made))["pairs"])

    newer = {
        "mirror",
        "heuristics",
        "max_length_ratio",
        "beyond_words",
        "neighbours",
        "samples",
        "grader",
        "ask_generator",
        "ask_sampling",
    }
    assert not newer & covered().keys()
    assert covered(mirror=True)["mirror"] is True
    asking = settings(pairs={"ask_generator": True})
    assert set(pairs.settings_of(asking, Inputs(asking))["prompts"]) == {"modify_instruction", "check_response"}
    assert covered(ask_generator=True)["ask_sampling"]["max_tokens"] == 256
    checking = settings(instructions={"decontamination": {"generated": True}})
    assert pairs.settings_of(checking, Inputs(checking))["decontaminate_generated"] is True
    assert "decontaminate_generated" not in pairs.settings_of(asking, Inputs(asking))
    assert covered(max_length_ratio=4)["max_length_ratio"] == 4
    assert covered(beyond_words=True, mirror=True)["beyond_words"] is True
    for alone in ({}, {"strategy": "worse_response"}, {"from_run": "other", "strategy": "neighbour_instruction"}):
        with pytest.raises(InputError, match=r"pairs\.beyond_words needs pairs\.strategy neighbour_instruction or"):
            settings(pairs={"beyond_words": True, **alone})
    near = {"min_similarity": 0.2}
    assert covered(strategy="neighbour_instruction", neighbours=near)["neighbours"]["min_similarity"] == 0.2
    assert covered(neighbours=near) == covered(), "no couples, no matter"


def test_checked_answers_of_a_scripted_generator(
    context: Callable[..., Context], asked: list[str], tmp_path: Path
) -> None:
    """From a file with answers to pairs: right and wrong ones by chance, and why there is not one of both."""
    file = tmp_path / "in.jsonl"
    rows = [{"instruction": f"What is 9 + 9? ({i})", "gold": "#### 18"} for i in range(40)]
    rows.append({"instruction": "What is love?", "gold": None})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = {"strategy": "checked_answer", "samples": 3}
    endings = ["\n#### 18", "\nAnswer: 17"]
    run = context(
        pairs=more,
        instructions={"source": str(file), "answer_column": "gold"},
        generator={"script": {"answers": endings}},
    )
    instructions.run(run)
    result = pairs.run(run, None)
    assert (result.rows_in, len(asked)) == (41, 41)
    files = shard_files(run.folder.stage_dir("pairs"))
    made = [row for shard in files for row in read_parquet(shard).to_pylist()]
    assert all(row["chosen"].endswith("#### 18") and row["rejected"].endswith("17") for row in made)
    assert len(made) > 20  # 3 of 4 on average
    lost = result.quarantined
    assert lost.pop("no_answer") == 1
    assert set(lost) == {"no_right_answer", "no_wrong_answer"}
    assert sum(lost.values()) + len(made) == 40


def test_the_generator_is_asked_about_its_pairs(context: Callable[..., Context], asked: list[str]) -> None:
    def result(yes: float) -> StageResult:
        run = with_instructions(
            context,
            strategy="modified_instruction",
            ask_generator=True,
            name=f"yes{yes}",
            generator={"script": {"says_yes": yes}},
        )
        return pairs.run(run, None)

    assert result(1.0).quarantined == {"answers_original": 5}
    assert result(0.0).quarantined == {"misses_own": 5}
    some = result(0.5)
    assert some.rows_out + sum(some.quarantined.values()) == 5


FIRST = (TEXTS[0], TEXTS[2])  # of the two couples


@pytest.mark.parametrize(
    ("setting", "reason", "answer"),
    [
        (
            {"heuristics": True},
            "refusal",
            lambda prompt: "I'm sorry, but I can't help with that." if prompt in FIRST else "The common one.",
        ),
        (
            {"max_length_ratio": 4},
            "lengths_apart",
            lambda prompt: "The rare one. " * 5 if prompt in FIRST else "The common one.",
        ),
        ({"beyond_words": True}, "words_tell", lambda prompt: f"It is about {prompt.split()[-1]}"),
    ],
)
def test_each_part_of_the_gate_is_a_setting(
    context: Callable[..., Context],
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    setting: dict[str, Any],
    reason: str,
    answer: Callable[[str], str],
) -> None:
    """The same answers to two couples of neighbours, with the setting and without it."""
    monkeypatch.setattr(ScriptedEngine, "_answer", lambda _, prompt, seed: answer(prompt))
    gated = pairs.run(with_instructions(context, name="gated", **setting), None)
    assert (gated.quarantined, gated.rows_out) == ({reason: 2}, 0)
    free = pairs.run(with_instructions(context, name="free"), None)
    assert (free.quarantined, free.rows_out) == ({}, 4)


Reasons = Callable[..., dict[str, int]]


@pytest.fixture
def reasons(context: Callable[..., Context], tmp_path: Path) -> Reasons:
    """Why pairs are not made where a benchmark has this prompt."""
    gold = tmp_path / "gold.jsonl"

    def found(prompt: str, name: str, strategy: str = "modified_instruction", **decontamination: Any) -> dict[str, int]:
        row = {"id": "1", "instruction": prompt, "response_a": "x", "response_b": "y", "label": "A"}
        gold.write_text(json.dumps(row) + "\n")
        given = {"source": "none", "heldout_fraction": 0, "decontamination": decontamination}
        more = {"evaluation": {"validation": f"validation={gold}"}, "name": name, "instructions": given}
        return pairs.run(with_instructions(context, strategy=strategy, **more), None).quarantined

    return found


def a_pair(context: Callable[..., Context], strategy: str) -> dict[str, Any]:
    run = with_instructions(context, strategy=strategy, name="first")
    pairs.run(run, None)
    made: dict[str, Any] = read_parquet(shard_files(run.folder.stage_dir("pairs"))[0]).to_pylist()[0]
    return made


def test_modified_instructions_are_checked_against_the_benchmarks(
    context: Callable[..., Context], asked: list[str], reasons: Reasons
) -> None:
    """The scripted generator's modified instructions begin with the same word, which a benchmark's prompt has too."""
    written = " ".join(a_pair(context, "modified_instruction")["modified_instruction"].split()[:8])
    assert reasons(written, "off", min_words=5) == {}
    assert reasons(written, "on", min_words=5, generated=True) == {"contaminated_modified": 1}
    assert reasons(written, "short", min_words=9, generated=True) == {}
    assert reasons(written, "disabled", enabled=False, min_words=5, generated=True) == {}


@pytest.mark.parametrize("strategy", ["modified_instruction", "worse_response", "neighbour_instruction"])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_responses_are_checked_against_the_benchmarks(
    context: Callable[..., Context], asked: list[str], reasons: Reasons, strategy: str, side: str
) -> None:
    written = " ".join(a_pair(context, strategy)[side].split()[:8])
    assert reasons(written, "off", strategy, ngram=6) == {}
    assert reasons(written, "on", strategy, ngram=6, generated=True) == {"contaminated_response": 1}
    assert reasons(written, "long", strategy, ngram=9, min_words=5, generated=True) == {}, "no short prompts in them"


def test_a_question_needs_a_second_instruction(settings: Callable[..., IterateSettings]) -> None:
    with pytest.raises(InputError, match=r"pairs.ask_generator: worse_response has no second instruction"):
        settings(pairs={"strategy": "worse_response", "ask_generator": True})


def test_checked_answers_need_answers(settings: Callable[..., IterateSettings]) -> None:
    with pytest.raises(InputError, match=r"instructions.answer_column must name the right answers"):
        settings(pairs={"strategy": "checked_answer"})
    checked = {"strategy": "checked_answer", "mirror": True}
    with pytest.raises(InputError, match="a response that is wrong answers no other instruction"):
        settings(pairs=checked, instructions={"answer_column": "gold"})


def test_what_was_written_worse_has_no_mirror(settings: Callable[..., IterateSettings]) -> None:
    with pytest.raises(InputError, match="a response that was written worse answers no other instruction"):
        settings(pairs={"strategy": "worse_response", "mirror": True})
