"""The training set: from shards of pairs and judgments to rows in TRL's formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from toy_tokenizers import PLAIN, make

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import CHOSEN_FIRST, JUDGMENTS, PAIRS, REJECTED_FIRST, TRAIN_DPO, TRAIN_SFT
from ray_app.errors import RunError
from ray_app.generation.programs.rows import judge_messages, pair_units
from ray_app.judging.registry import PROTOCOLS
from ray_app.judging.samples import read_samples
from ray_app.loop.stages import joining, train_set
from ray_app.run.shards import ShardWriter, row_counts
from ray_app.run.storage import list_files, read_parquet
from ray_app.train.trainable import Trainer

PROMPT = load_prompt("judge_pairwise_small")
ORDERS = (CHOSEN_FIRST, REJECTED_FIRST)


def pair(number: int) -> dict[str, Any]:
    empty = {name: None for name in PAIRS.names}
    texts = {"instruction": f"Question {number}?", "chosen": f"right {number}", "rejected": f"wrong {number}"}
    groups = {"category": "coding" if number < 3 else None, "complexity": 12 - 2 * number}
    return {**empty, "pair_id": f"p{number}", "split": "train", **texts, **groups}


def judgments(identity: str, order: str, letters: str) -> list[dict[str, Any]]:
    """The samples of one unit, `-` unparsed; the first correct one is kept."""
    gold = "A" if order == CHOSEN_FIRST else "B"
    empty = {name: None for name in JUDGMENTS.names}
    return [
        {
            **empty,
            "pair_id": identity,
            "order": order,
            "sample": j,
            "verdict": None if letter == "-" else letter,
            "correct": letter == gold,
            "kept": letter == gold and gold not in letters[:j],
            "text": f"{identity} {order} {j} [[{letter}]]",
        }
        for j, letter in enumerate(letters)
    ]


def write(directory: str, schema: pa.Schema, units: Any, max_rows: int) -> list[str]:
    with ShardWriter(directory, schema, max_rows=max_rows) as writer:
        for rows in units:
            writer.add(rows)
    return list_files(directory, "shard-*.parquet")


@pytest.fixture(scope="module", autouse=True)
def seed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a seed's tokenizer: its tokens are bytes."""
    SEED.append(str(tmp_path_factory.mktemp("seed")))
    make(PLAIN).save_pretrained(SEED[-1])
    return SEED[-1]


SEED: list[str] = []


def run_of(context: Any, letters: dict[tuple[int, str], str], **settings: Any) -> Any:
    """A run whose pairs and judgments lie in small shards."""
    run = context(**settings, judge={"model": SEED[-1]})
    numbers = sorted({number for number, _ in letters})
    write(run.folder.stage_dir("pairs"), PAIRS, ([pair(n)] for n in numbers), 2)
    units = (judgments(f"p{n}", order, drawn) for (n, order), drawn in letters.items())
    write(run.folder.stage_dir("judgments", 1), JUDGMENTS, units, 4)
    return run


def made(run: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The stage's result and rows. They are few, so the joins run here; as Ray's tasks in engine/test_streaming.py."""
    result = train_set.run(run, 1)
    files = list_files(run.folder.stage_dir("train_set", 1), "shard-*.parquet")
    return result, [row for file in files for row in read_parquet(file).to_pylist()]


LETTERS = {
    (1, CHOSEN_FIRST): "BA",
    (1, REJECTED_FIRST): "B",
    (2, CHOSEN_FIRST): "A",
    (2, REJECTED_FIRST): "-AB",
    (3, CHOSEN_FIRST): "BB-",
    (3, REJECTED_FIRST): "AAB",
    (4, CHOSEN_FIRST): "A",
    (4, REJECTED_FIRST): "---",
    (5, CHOSEN_FIRST): "BBB",
    (5, REJECTED_FIRST): "AAA",
}


def test_rows_are_prompts_and_the_kept_judgment(context: Any) -> None:
    result, rows = made(run_of(context, LETTERS))
    assert {(row["pair_id"], row["order"], row["sample"]) for row in rows} == {
        ("p1", CHOSEN_FIRST, 1),
        ("p1", REJECTED_FIRST, 0),
        ("p2", CHOSEN_FIRST, 0),
        ("p2", REJECTED_FIRST, 2),
        ("p3", REJECTED_FIRST, 2),
        ("p4", CHOSEN_FIRST, 0),
    }
    for row in rows:
        assert set(row) == set(TRAIN_SFT.names)
        number = int(row["pair_id"][1:])
        unit = next(u for u in pair_units(pair(number)) if u["order"] == row["order"])
        assert row["prompt"] == judge_messages(PROMPT, unit), "what the judge saw"
        letter = "A" if row["order"] == CHOSEN_FIRST else "B"
        said = f"{row['pair_id']} {row['order']} {row['sample']} [[{letter}]]"
        assert row["completion"] == [{"role": "assistant", "content": said}]
        assert row["iteration"] == 1
    assert result.extra == {
        "rows": 6,
        "tried": 10,
        "kept": 6,
        "keep_rate": 0.6,
        "kept_by_letter": {"A": 3, "B": 3},
        "dropped_by_balance": 0,
        "trained_by_letter": {"A": 3, "B": 3},
        "pass_rate": 0.3,
        "pass_rate_n": 10,
        "pass_rate_by_category": {"coding": {"value": 0.5, "n": 4}, "unknown": {"value": 1 / 6, "n": 6}},
        "pass_rate_by_complexity": {
            "2": {"value": 0.0, "n": 2},
            "4": {"value": 0.5, "n": 2},
            "6": {"value": 0.0, "n": 2},
            "8": {"value": 0.5, "n": 2},
            "10": {"value": 0.5, "n": 2},
        },
        "pairs": 4,
        "explanation_words_median": 3,
        "bare_verdicts": 0,
        "distinct_explanations": 1,
        "calling_explanations": 0,
        "contradicting_explanations": None,
    }
    assert (result.rows_in, result.rows_out) == (sum(map(len, LETTERS.values())), 6)


def test_the_surplus_letter_is_dropped_unless_told_otherwise(context: Any) -> None:
    letters = {(n, order): "A" for n in range(6) for order in ORDERS} | {(0, REJECTED_FIRST): "B"}
    result, rows = made(run_of(context, letters))
    assert sorted(row["order"] for row in rows) == [CHOSEN_FIRST, REJECTED_FIRST]
    assert result.extra["dropped_by_balance"] == 5
    result, rows = made(run_of(context, letters, judging={"balance": False}, name="other"))
    assert (len(rows), result.extra["dropped_by_balance"]) == (7, 0)


def test_units_that_were_seldom_right_are_left_out_where_the_settings_say_so(context: Any) -> None:
    def trained(name: str, **judging: Any) -> tuple[set[tuple[str, str]], int]:
        result, rows = made(run_of(context, LETTERS, name=name, judging={"balance": False, **judging}))
        return {(row["pair_id"], row["order"]) for row in rows}, result.extra.get("dropped_unsure", 0)

    every, none = trained("every")
    late = {("p1", CHOSEN_FIRST), ("p2", REJECTED_FIRST), ("p3", REJECTED_FIRST)}  # in their order: draw 1, 2 and 2
    assert (len(every), none) == (6, 0)
    assert trained("first", max_draws=1) == (every - late, 3)
    assert trained("second", max_draws=2) == (every - late | {("p1", CHOSEN_FIRST)}, 2)
    # One of two is right of p1's, one of three of the two others.
    assert trained("half", sampling="all", min_pass_rate=0.5) == (every - late | {("p1", CHOSEN_FIRST)}, 2)
    assert trained("most", sampling="all", min_pass_rate=0.6) == (every - late, 3)
    assert trained("third", sampling="all", min_pass_rate=0.3) == (every, 0)


def test_dpo_rows_hold_a_correct_and_a_wrong_judgment(context: Any) -> None:
    result, rows = made(run_of(context, LETTERS, train={"recipe": "dpo"}))
    by_unit = {(row["pair_id"], row["order"]): row for row in rows}
    # p2 and p3 each have a wrong parsed judgment in the order that shows the better one second; one stays in balance.
    assert len(rows) == 2
    first = by_unit["p1", CHOSEN_FIRST]
    assert set(first) == set(TRAIN_DPO.names)
    assert first["sample"] == 1
    assert first["chosen"][0]["content"].endswith("1 [[A]]")
    assert first["rejected"][0]["content"].endswith("0 [[B]]")
    (other,) = (row for unit, row in by_unit.items() if unit[1] == REJECTED_FIRST)
    assert other["chosen"][0]["content"].endswith("2 [[B]]")
    assert "[[A]]" in other["rejected"][0]["content"]
    assert (result.rows_out, result.extra["kept"]) == (2, 6)


def test_several_preferences_of_a_prompt_are_rows_of_their_own(context: Any) -> None:
    letters = {(1, CHOSEN_FIRST): "AABAB", (1, REJECTED_FIRST): "BA-B"}
    dpo = {"pairs_per_prompt": 2, "unparsed_as_wrong": True}
    run = run_of(context, letters, train={"recipe": "dpo", "dpo": dpo}, judging={"sampling": "all"})
    result, rows = made(run)
    assert [(row["order"], row["sample"]) for row in rows] == [
        (CHOSEN_FIRST, 0),
        (CHOSEN_FIRST, 1),
        (REJECTED_FIRST, 0),
        (REJECTED_FIRST, 3),
    ]
    texts = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    assert [chosen for chosen, _ in texts] == [
        f"p1 {r['order']} {r['sample']} [[{'AABB'[i]}]]" for i, r in enumerate(rows)
    ]
    assert {rejected[-5:] for _, rejected in texts[2:]} == {"[[A]]", "[[-]]"}
    assert result.extra["trained_by_letter"] == {"A": 2, "B": 2}
    assert (result.extra["pairs"], result.extra["rows"]) == (1, 4)


def test_a_wrong_judgment_that_cannot_be_encoded_gives_its_place_to_the_next(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was lost with its unit once. Each that cannot be is quarantined by its own id."""
    letters = {(0, CHOSEN_FIRST): "ABBB", (0, REJECTED_FIRST): "BA", (1, REJECTED_FIRST): "BA", (2, CHOSEN_FIRST): "AB"}

    def long(identity: str, order: str, drawn: str) -> list[dict[str, Any]]:
        rows = JUDGMENTS_OF(identity, order, drawn)
        unfit = {("p0", CHOSEN_FIRST): (1, 2), ("p1", REJECTED_FIRST): (1,), ("p2", CHOSEN_FIRST): (0,)}
        for j in unfit.get((identity, order), ()):
            rows[j]["text"] += " because" * 1000
        return rows

    monkeypatch.setitem(globals(), "judgments", long)
    run = run_of(context, letters, train={"recipe": "dpo"}, judging={"sampling": "all"})
    result, rows = made(run)
    assert [(row["pair_id"], row["order"]) for row in rows] == [("p0", CHOSEN_FIRST), ("p0", REJECTED_FIRST)]
    assert rows[0]["rejected"][0]["content"] == f"p0 {CHOSEN_FIRST} 3 [[B]]"
    faults = list_files(run.folder.stage_dir("train_set", 1), "quarantine-*.parquet")
    lost = sorted(row["id"] for file in faults for row in read_parquet(file).to_pylist())
    unfit = {f"p1/{REJECTED_FIRST}/1/1", f"p2/{CHOSEN_FIRST}/0/1"}
    assert set(lost) - unfit <= {f"p0/{CHOSEN_FIRST}/1/1", f"p0/{CHOSEN_FIRST}/2/1"}, "those that were looked at"
    assert unfit <= set(lost)
    assert len(lost) == len(set(lost)) == result.quarantined["too_long"]


@pytest.mark.parametrize(
    ("recipe", "letters", "cause"),
    [
        ("sft", "A-", r"6 \(pair, order\) judged with 12 samples, 6 of them unparsed.*3 A\."),
        ("dpo", "A-", r"of 6 \(pair, order\) 3 have a right judgment; with a wrong one .* none\."),
        ("dpo", "--", r"6 \(pair, order\) judged with 12 samples, 12 of them unparsed; kept before balancing: none\."),
    ],
)
def test_an_empty_set_stops_the_run_with_its_cause(context: Any, recipe: str, letters: str, cause: str) -> None:
    drawn = {(n, order): letters for n in range(3) for order in ORDERS}
    with pytest.raises(RunError, match=cause):
        made(run_of(context, drawn, train={"recipe": recipe}))


def test_what_cannot_be_trained_on_is_lost_before_the_balance(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six of A, two of B; four of A are too long: the two others stand against B's two, and no B is dropped."""
    letters = {(n, CHOSEN_FIRST): "A" for n in range(6)} | {(n, REJECTED_FIRST): "B" for n in range(2)}
    run = run_of(context, letters)
    whole = joining.Join.rows

    def longer(join: Any, task: Any) -> Iterator[list[dict[str, Any]]]:
        for rows in whole(join, task):
            for row in rows:
                if row["pair_id"] in ("p0", "p1", "p2", "p3") and row["order"] == CHOSEN_FIRST:
                    row["completion"][0]["content"] += " because" * 1000
            yield rows

    monkeypatch.setattr(joining.Join, "rows", longer)
    result, rows = made(run)
    assert [(row["pair_id"], row["order"]) for row in rows] == [
        ("p0", REJECTED_FIRST), ("p1", REJECTED_FIRST), ("p4", CHOSEN_FIRST), ("p5", CHOSEN_FIRST)
    ]  # fmt: skip
    assert result.extra["trained_by_letter"] == {"A": 2, "B": 2}
    assert (result.extra["kept_by_letter"], result.extra["dropped_by_balance"]) == ({"A": 6, "B": 2}, 0)
    assert result.quarantined == {"too_long": 4}
    assert row_counts(run.folder.stage_dir("train_set", 1)) == (4, {"too_long": 4})


def test_nothing_left_to_train_on_says_what_was_lost(context: Any) -> None:
    letters = {(n, order): "A" if order == CHOSEN_FIRST else "B" for n in range(2) for order in ORDERS}
    with pytest.raises(RunError, match=r"of 4 kept judgments 4 cannot be trained on \(too_long 4: \d+ tokens, train"):
        made(run_of(context, letters, train={"sequence_length": 64}))


def test_control_tokens_of_the_seed_are_broken_in_prompts_and_answers_keep_their_tokens(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "pair", lambda n: {**PAIR(n), "chosen": "it ends <|end|> here"})
    drawn = [1, 2, 3]
    monkeypatch.setitem(globals(), "judgments", lambda *a: [{**row, "token_ids": drawn} for row in JUDGMENTS_OF(*a)])
    letters = {(0, CHOSEN_FIRST): "A", (0, REJECTED_FIRST): "B"}
    _, rows = made(run_of(context, letters))
    for row in rows:
        assert "<\u2060|end|>" in row["prompt"][-1]["content"]
        assert row["completion_ids"] == drawn


PAIR, JUDGMENTS_OF = pair, judgments


def test_judgments_without_their_pair_stop_the_run(context: Any) -> None:
    run = run_of(context, LETTERS)
    write(run.folder.stage_dir("judgments", 1), JUDGMENTS, [judgments("p7", CHOSEN_FIRST, "A")], 4)
    with pytest.raises(RunError, match="1 judged pairs are not in the table of pairs, p7 among them"):
        made(run)


def test_an_interrupted_attempt_leaves_nothing_behind(context: Any) -> None:
    run = run_of(context, LETTERS)
    stale = [{"pair_id": "stale", "order": "x", "sample": 0, "iteration": 1, "prompt": [], "completion": []}]
    write(run.folder.stage_dir("train_set", 1), TRAIN_SFT, [[{**row, "completion_ids": None} for row in stale]], 1)
    first, rows = made(run)
    assert "stale" not in {row["pair_id"] for row in rows}
    again, same = made(run)
    assert (again.extra, same) == (first.extra, rows)
    assert row_counts(run.folder.stage_dir("train_set", 1)) == (6, {})


def test_a_task_names_only_the_shards_it_needs(tmp_path: Path) -> None:
    pairs = write(str(tmp_path / "pairs"), PAIRS, ([pair(n)] for n in range(6)), 2)
    units = (judgments(f"p{n}", order, "AB") for n in range(6) for order in ORDERS)
    files = write(str(tmp_path / "judgments"), JUDGMENTS, units, 4)
    samples, places = read_samples(files)
    assert len(samples) == 24
    assert {identity: len(found) for identity, found in places.items()} == {f"p{n}": 1 for n in range(6)}
    selected = [(s,) for s in samples if s.kept and s.pair_id in ("p0", "p1", "p4")]
    tasks = joining.plan(pairs, selected, places)
    named = [[file for file, _ in task.shards] for task in tasks]
    assert named == [[pairs[0]], [pairs[2]]], "no task for a shard without selected rows"
    assert tasks[0].judgment_files == tuple(sorted({*places["p0"], *places["p1"]}))
    assert set(tasks[1].shards[0][1]) == {("p4", order) for order in ORDERS}
    assert [(row["pair_id"], row["order"]) for row in joined(tasks)] == sorted(s.unit for (s,) in selected)


def joined(tasks: list[joining.JoinTask]) -> list[dict[str, Any]]:
    join = joining.Join(PROMPT, 1, PROTOCOLS["pairwise"], Trainer(SEED[-1], None, 4096))
    return [row for task in tasks for rows in join.rows(task) for row in rows]


def test_a_task_of_several_shards_makes_the_same_rows_and_reads_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines answer out of order: every file of judgments holds some of every shard of pairs."""
    pairs = write(str(tmp_path / "pairs"), PAIRS, ([pair(n)] for n in range(8)), 2)
    units = [judgments(f"p{n}", order, "BA") for n in (0, 2, 4, 6, 1, 3, 5, 7) for order in ORDERS]
    files = write(str(tmp_path / "judgments"), JUDGMENTS, units, 8)
    samples, places = read_samples(files)
    selected = [(sample,) for sample in samples if sample.kept]
    small = joining.plan(pairs, selected, places)
    monkeypatch.setattr(joining, "FEWEST_TASKS", 2)
    monkeypatch.setattr(joining, "MOST_READS", 1.0)
    large = joining.plan(pairs, selected, places)
    assert [len(task.shards) for task in large] == [2, 2]
    read: list[str] = []
    monkeypatch.setattr(joining, "read_parquet", lambda file, *a: read.append(file) or read_parquet(file, *a))
    assert joined(large) == joined(small)
    assert [read.count(file) for file in pairs] == [2] * 4
    assert sum(read.count(file) for file in files) == sum(len(task.judgment_files) for task in [*small, *large])
    assert sum(len(task.judgment_files) for task in large) < sum(len(task.judgment_files) for task in small)


def apart(shards: int, files: int) -> list[range]:
    """Places of shards whose judgments lie in so many files each: those of neighbours are nearly the same."""
    return [range(number, number + files) for number in range(shards)]


@pytest.mark.parametrize(
    ("shards", "files", "size", "reads"),
    [
        *((0, 1, 1, 0), (1, 9, 1, 9), (31, 9, 1, 279)),  # few shards: a task each
        *((4000, 1, 1, 4000), (4000, 2, 1, 8000)),  # in their order: nothing is read twice, or everything is
        *((4000, 4, 4, 7000), (4000, 16, 16, 7750), (100, 16, 4, 475)),
        (4000, 500, 32, 66_375),  # no task holds more, however far its judgments lie apart
    ],
)
def test_a_task_has_as_many_shards_as_keep_files_from_being_read_again(
    shards: int, files: int, size: int, reads: int
) -> None:
    places = [[str(file) for file in one] for one in apart(shards, files)]
    assert joining.shards_a_task(places) == size
    assert joining.reads(places, size) == reads
