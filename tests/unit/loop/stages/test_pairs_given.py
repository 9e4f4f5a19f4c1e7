"""Pairs made elsewhere, beside a strategy's or in their place: what the stage writes, resumes and is invalidated by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.schema import INSTRUCTIONS, content_id
from ray_app.errors import InputError
from ray_app.generation.runner import StageResult
from ray_app.loop.checks import check_models
from ray_app.loop.run import record_of
from ray_app.loop.stages import pairs
from ray_app.loop.stages.context import Context
from ray_app.loop.steps import Step, steps_of
from ray_app.run.folder import RunFolder, commit
from ray_app.run.shards import ShardWriter, shard_files
from ray_app.run.storage import read_parquet

Make = Callable[..., Context]
ASKED = ["Name a bird that sings.", "Name a fish that swims far.", "Name a tree."]


def with_instructions(run: Context, texts: list[str] = ASKED) -> Context:
    empty = {name: None for name in INSTRUCTIONS.names}
    with ShardWriter(run.folder.stage_dir("instructions"), INSTRUCTIONS) as writer:
        writer.add([{**empty, "instruction_id": content_id(t), "text": t, "split": "train"} for t in texts])
    return run


def rows_of(run: Context) -> list[dict[str, Any]]:
    files = shard_files(run.folder.stage_dir("pairs"))
    return [row for file in files for row in read_parquet(file).to_pylist()]


def file_of(path: Path, *pairs: tuple[str, str, str]) -> str:
    names = ("instruction", "chosen", "rejected")
    path.write_text("".join(json.dumps(dict(zip(names, pair, strict=True))) + "\n" for pair in pairs))
    return str(path)


def step_of(run: Context) -> Step:
    return next(step for step in steps_of(run.settings, run.folder) if step.stage == "pairs")


def committed(run: Context, result: StageResult) -> Context:
    step = step_of(run)
    commit(step.directory, record_of(step, result, ""))
    return run


HUMAN = (
    (ASKED[0], "The wren, as people say.", "A stone."),
    ("What is new here?", "A thing.", "No thing."),
    ("", "x", "y"),
)


def test_a_mix_has_both_and_an_instruction_of_both_is_made_all_the_same(
    context: Make, asked: list[str], tmp_path: Path
) -> None:
    run = with_instructions(context(pairs={"source": [file_of(tmp_path / "human.jsonl", *HUMAN)]}))
    result = pairs.run(run, None)
    rows = rows_of(run)
    assert [row["strategy"] for row in rows] == ["given"] * 2 + ["modified_instruction"] * 3
    assert asked == [content_id(text) for text in ASKED]
    assert rows[0]["instruction_id"] == rows[2]["instruction_id"]
    assert len({row["pair_id"] for row in rows}) == 5
    assert (result.rows_in, result.rows_out, result.quarantined) == (6, 5, {"empty_instruction": 1})
    assert result.extra["given"] == {str(tmp_path / "human.jsonl"): {"read": 3, "taken": 2}}
    again = pairs.run(run, None)
    assert rows_of(run) == rows, "what is there is neither taken nor made again"
    assert (again.rows_in, again.rows_out, again.quarantined) == (6, 5, {"empty_instruction": 1})
    assert len(asked) == 3


def test_an_attempt_that_was_stopped_while_it_took_pairs_begins_anew(
    context: Make, asked: list[str], tmp_path: Path
) -> None:
    run = with_instructions(context(pairs={"source": [file_of(tmp_path / "human.jsonl", *HUMAN)]}))
    pairs.run(run, None)
    wanted = rows_of(run)
    directory = Path(run.folder.stage_dir("pairs"))
    (directory / "given.json").unlink()
    for file in shard_files(str(directory))[1:]:
        Path(file).unlink()
    pairs.run(run, None)
    assert rows_of(run) == wanted


def test_given_pairs_alone_need_no_generator(context: Make, asked: list[str], tmp_path: Path) -> None:
    more = {"strategy": "given", "source": [file_of(tmp_path / "human.jsonl", *HUMAN)]}
    run = with_instructions(context(pairs=more, generator={"model": str(tmp_path / "gone"), "kind": "vllm"}))
    check_models(run.settings)
    assert step_of(run).role is None
    assert step_of(run).feeds is None
    result = pairs.run(run, None)
    assert (result.rows_in, result.rows_out, asked) == (3, 2, [])
    assert pairs.run(run, None).rows_out == 2


def test_a_file_of_which_nothing_is_left_is_named(context: Make, asked: list[str], tmp_path: Path) -> None:
    more = {"strategy": "given", "source": [file_of(tmp_path / "human.jsonl", ("", "x", "y"))]}
    with pytest.raises(InputError, match=r"no pair of .*human.jsonl is left: {'empty_instruction': 1}"):
        pairs.run(with_instructions(context(pairs=more)), None)


def test_another_runs_pairs_are_taken_under_their_ids(context: Make, asked: list[str]) -> None:
    other = with_instructions(context(name="other", pairs={"mirror": True}))
    committed(other, pairs.run(other, None))
    del asked[:]
    run = with_instructions(context(pairs={"from_run": other.folder.uri}), [*ASKED, "One more?"])
    result = pairs.run(run, None)
    assert rows_of(run) == rows_of(other)
    assert (result.rows_in, result.rows_out, asked) == (6, 6, [])
    assert rows_of(run)[0]["mirror"] == rows_of(run)[1]["pair_id"]
    direct = with_instructions(context(name="direct", pairs={"from_run": other.folder.stage_dir("pairs")}))
    pairs.run(direct, None)
    assert rows_of(direct) == rows_of(other)


def test_another_runs_pairs_and_a_file_are_a_mix(context: Make, asked: list[str], tmp_path: Path) -> None:
    other = with_instructions(context(name="other"))
    committed(other, pairs.run(other, None))
    made = rows_of(other)[0]
    same = (made["instruction"], made["chosen"], made["rejected"])
    source = file_of(tmp_path / "human.jsonl", *HUMAN, same)
    run = with_instructions(context(pairs={"from_run": other.folder.uri, "source": [source]}))
    assert pairs.run(run, None).quarantined == {"empty_instruction": 1, "duplicate": 1}
    assert [row["strategy"] for row in rows_of(run)] == ["modified_instruction"] * 3 + ["given"] * 2


def test_a_run_takes_no_pairs_of_its_own(context: Make, asked: list[str]) -> None:
    run = with_instructions(context())
    committed(run, pairs.run(run, None))
    again = context(pairs={"from_run": run.folder.uri})
    with pytest.raises(InputError, match="is the run itself"):
        steps_of(again.settings, again.folder)


def test_the_content_of_what_is_given_is_in_the_fingerprint(context: Make, asked: list[str], tmp_path: Path) -> None:
    file = tmp_path / "human.jsonl"
    source = file_of(file, *HUMAN)
    mixed = context(pairs={"source": [source]})
    before = step_of(mixed).fingerprint
    file_of(file, *HUMAN[:1])
    after = step_of(mixed).fingerprint
    assert before.settings == after.settings
    assert before.inputs[source] != after.inputs[source]
    assert "generator" in after.inputs
    other = with_instructions(context(name="other"))
    committed(other, pairs.run(other, None))
    taken = context(pairs={"from_run": other.folder.uri})
    was = step_of(taken).fingerprint
    assert set(was.inputs) == {other.folder.uri}
    assert "pairs.sampling.temperature" not in was.settings, "nothing is sampled"
    (Path(other.folder.stage_dir("pairs")) / "shard-00001.parquet").write_bytes(
        Path(shard_files(other.folder.stage_dir("pairs"))[0]).read_bytes()
    )
    assert step_of(taken).fingerprint.inputs != was.inputs
    assert not {"pairs.source", "pairs.from_run"} & step_of(context()).fingerprint.settings.keys()


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"strategy": "given"}, "pairs.source or pairs.from_run must name the pairs"),
        ({"from_run": "x", "refresh": "each_iteration"}, "pairs from elsewhere are the same in every iteration"),
    ],
)
def test_settings_that_make_no_sense(context: Make, part: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        context(pairs=part)


def test_what_is_not_there_is_told_before_any_work(context: Make, tmp_path: Path) -> None:
    for part, said in (
        ({"source": [str(tmp_path / "gone.jsonl")]}, "gone.jsonl"),
        ({"from_run": str(tmp_path / "nowhere")}, "nowhere holds no committed pairs"),
    ):
        run = context(pairs=part)
        with pytest.raises(InputError, match=said):
            steps_of(run.settings, RunFolder(run.settings.run_uri))
