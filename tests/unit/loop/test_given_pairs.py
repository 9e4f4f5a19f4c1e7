"""Pairs made elsewhere: both forms of a file, every reason for which a row is not taken, and those of another run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.ngrams import Contamination
from ray_app.base.schema import HELDOUT, PAIRS, TRAIN, content_id, pack_text, pair_id, split_of
from ray_app.errors import InputError
from ray_app.generation.pair_gate import Gate
from ray_app.loop.data_settings import InstructionSettings
from ray_app.loop.given_pairs import GivenPairs, Judged, Splits, table_of_run

Row = dict[str, Any]
PAIR = {"instruction": "Name a bird.", "chosen": "The wren.", "rejected": "The trout."}


def part(**settings: Any) -> InstructionSettings:
    return InstructionSettings(source="none", **{"heldout_fraction": 0.3, **settings})


def taking(
    own: Iterable[Row] = (), benchmark: str = "", gate: Gate | None = None, settings: InstructionSettings | None = None
) -> GivenPairs:
    grams = Contamination(4)
    grams.add([benchmark])
    return GivenPairs(Splits(settings or part(), own), grams, gate or Gate())


def written(path: Path, *rows: Row) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def split(judged: Iterable[Judged]) -> tuple[list[Row], list[str]]:
    """Rows that are taken, and the reasons of the others."""
    both = list(judged)
    return [row for row, _ in both if row], [fault["reason"] for _, fault in both if fault]


def test_a_row_of_a_file_is_a_pair_with_an_id_of_its_content(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", {**PAIR, "id": 7, "category": "other", "complexity": 3, "generator": "people"})
    (row,), lost = split(taking().of_file(path))
    identity = content_id("Name a bird.")
    assert row == {
        "pair_id": pair_id("Name a bird.", "The wren.", "The trout.", "given", "people"),
        "instruction_id": identity,
        "instruction": "Name a bird.",
        "modified_instruction": "",
        "chosen": "The wren.",
        "rejected": "The trout.",
        "generator": "people",
        "strategy": "given",
        "split": split_of(identity, 0.3),
        "category": "other",
        "complexity": 3,
        "group": identity,
        "mirror": None,
    }
    assert set(row) == set(PAIRS.names)
    assert not lost


def test_verdict_files_label_what_has_no_label(tmp_path: Path) -> None:
    """By id; a pair on which the judge has no verdict is none."""
    sides = {"instruction": "Name a bird.", "response_a": "The wren.", "response_b": "The trout."}
    rows = [{**sides, "id": identity, "instruction": f"Name bird {identity}."} for identity in (1, 2, 3, 4)]
    path = written(tmp_path / "p.jsonl", *rows)
    told = [{"id": "1", "verdict": "A"}, {"id": "2", "verdict": "B"}, {"id": "3", "verdict": None}]
    verdicts = written(tmp_path / "v.jsonl", *told)
    taker = GivenPairs(Splits(part(), []), Contamination(4), Gate(), verdicts=[verdicts])
    taken, lost = split(taker.of_file(path))
    assert [(row["chosen"], row["rejected"]) for row in taken] == [
        ("The wren.", "The trout."),
        ("The trout.", "The wren."),
    ]
    assert lost == ["no_label", "no_label"]
    with pytest.raises(InputError, match=r"label.*pairs\.verdicts names verdict files"):
        list(taking().of_file(path))
    again = written(tmp_path / "w.jsonl", {"id": "2", "verdict": "A"})
    with pytest.raises(InputError, match=r"w\.jsonl and another file tell of the same id '2'"):
        GivenPairs(Splits(part(), []), Contamination(4), Gate(), verdicts=[verdicts, again])


def test_labels_say_which_response_is_better(tmp_path: Path) -> None:
    sides = {"instruction": "Name a bird.", "response_a": "The wren.", "response_b": "The trout."}
    labels = ("A", "B", None, "C")
    path = written(tmp_path / "p.jsonl", *({**sides, "label": label} for label in labels))
    rows, lost = split(taking().of_file(path))
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        ("The wren.", "The trout."),
        ("The trout.", "The wren."),
    ]
    assert lost == ["no_label", "bad_label"]
    assert len({row["group"] for row in rows}) == 1, "pairs of one instruction are one cluster"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": " "}, "empty_instruction"),
        ({"instruction": None}, "empty_instruction"),
        (
            {"instruction": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "ends_with_assistant",
        ),
        ({"chosen": ""}, "empty_response"),
        ({"rejected": None}, "empty_response"),
        ({"chosen": 5}, "not_a_text"),
        ({"rejected": [{"role": "user", "content": "x"}]}, "not_a_text"),
        ({"rejected": "the WREN"}, "equal_responses"),
        ({"instruction": "Please list four small birds today"}, "contaminated"),
        ({"rejected": "I'm sorry, but I can't help."}, "refusal"),
        ({"modified_instruction": "Name a bird. And a fish."}, "adds_to_original"),
        ({"rejected": "one two three four five six seven eight nine"}, "lengths_apart"),
    ],
)
def test_every_reason_of_a_row_that_is_not_taken(tmp_path: Path, row: Row, reason: str) -> None:
    path = written(tmp_path / "p.jsonl", {**PAIR, **row, "id": "x9"}, PAIR)
    gate = Gate(heuristics=True, max_length_ratio=4)
    both = list(taking(benchmark="list four small birds", gate=gate).of_file(path))
    (taken,), lost = split(both)
    assert (taken["chosen"], lost) == ("The wren.", [reason])
    fault = both[0][1]
    assert fault is not None
    assert fault["id"] == f"{path} line 1 id x9"
    assert fault["stage"] == "given_pairs"  # no unit of the strategy's is done by it
    assert "chosen" in fault["detail"]


def test_duplicates_of_ids_and_of_content(tmp_path: Path) -> None:
    other = {**PAIR, "chosen": "The robin."}
    one = written(tmp_path / "1.jsonl", {**PAIR, "id": "a"}, {**other, "id": "a"}, {**PAIR, "id": "b"})
    two = written(tmp_path / "2.jsonl", {**PAIR, "id": "a"}, {**other, "id": "c"})
    taken = taking()
    assert split(taken.of_file(one))[1] == ["duplicate_id", "duplicate"]
    rows, lost = split(taken.of_file(two))
    assert lost == ["duplicate"], "an id is one of its file; the same pair is the same in any"
    assert [row["chosen"] for row in rows] == ["The robin."]


def test_messages_of_an_assistant_and_conversations_are_texts(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "?"},
    ]
    chosen = [{"role": "assistant", "content": " Yes. "}]
    path = written(tmp_path / "p.jsonl", {"instruction": turns, "chosen": chosen, "rejected": "No."})
    (row,), _ = split(taking().of_file(path))
    assert (row["instruction"], row["chosen"]) == (pack_text(turns), "Yes.")  # type: ignore[arg-type]


def test_a_file_that_holds_no_pairs_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", {"instruction": "x", "response_a": "y"})
    with pytest.raises(
        InputError, match=r"p.jsonl holds no pairs: .*chosen, rejected or .*it has instruction, response_a"
    ):
        list(taking().of_file(path))


def own(text: str, side: str) -> Row:
    return {"instruction_id": content_id(text), "text": text, "split": side}


LONG = "Write a short poem about the sea in the early morning, with four lines and a rhyme"


@pytest.mark.parametrize("side", [TRAIN, HELDOUT])
def test_the_split_is_that_of_the_runs_own_instruction(tmp_path: Path, side: str) -> None:
    near = f"{LONG}, please"
    path = written(tmp_path / "p.jsonl", {**PAIR, "instruction": LONG}, {**PAIR, "instruction": near})
    apart, _ = split(taking([own(LONG, side)]).of_file(path))
    assert [row["split"] for row in apart] == [side, split_of(content_id(near), 0.3)]
    together, _ = split(taking([own(LONG, side)], settings=part(near_duplicates="one_split")).of_file(path))
    assert [row["split"] for row in together] == [side, side]


def test_a_pair_that_repeats_both_sides_of_the_split_is_on_none(tmp_path: Path) -> None:
    """Trained on, it would show what is held out; held out, what is trained on."""
    one, other = LONG.replace("four lines", "six lines"), LONG.replace("the sea", "a hill")
    sides = [own(one, TRAIN), own(other, HELDOUT)]
    path = written(tmp_path / "p.jsonl", {**PAIR, "instruction": LONG}, {**PAIR, "instruction": f"{one}, please"})
    near = part(near_duplicates="one_split", near_similarity=0.7)
    taken, lost = split(taking(sides, settings=near).of_file(path))
    assert ([row["split"] for row in taken], lost) == ([TRAIN], ["split_conflict"])
    rows = couple(LONG, "Ask two?", "g")
    assert split(taking(sides, settings=near).of_run(rows))[1] == ["split_conflict"] * 2
    assert split(taking(sides, settings=near).of_run([run_row(LONG, "a b", "c d")]))[1] == ["split_conflict"]


def run_row(instruction: str, chosen: str, rejected: str, **more: Any) -> Row:
    return {
        **dict.fromkeys(PAIRS.names),
        "pair_id": content_id([instruction, chosen, rejected]),
        "instruction_id": content_id(instruction),
        "instruction": instruction,
        "modified_instruction": "",
        "chosen": chosen,
        "rejected": rejected,
        "generator": "g",
        "strategy": "modified_instruction",
        "split": "elsewhere",
        **more,
    }


def couple(first: str, second: str, group: str, **more: Any) -> list[Row]:
    one = run_row(first, "a b", "c d", group=group, modified_instruction=second, **more)
    two = run_row(second, "c d", "a b", group=group, modified_instruction=first, **more)
    return [{**one, "mirror": two["pair_id"]}, {**two, "mirror": one["pair_id"]}]


def test_pairs_of_another_run_keep_their_ids_and_take_this_runs_split() -> None:
    rows = couple("Ask one?", "Ask two?", "g")
    sides = [own("Ask one?", HELDOUT), own("Ask two?", HELDOUT)]
    taken, lost = split(taking(sides).of_run(rows))
    assert not lost
    assert taken == [{**row, "split": HELDOUT} for row in rows]
    older = run_row("Ask three?", "x", "y")
    del older["group"], older["mirror"]
    (row,), _ = split(taking().of_run([older]))
    assert (row["group"], row["mirror"]) == (row["instruction_id"], None)


def test_a_group_never_lies_on_both_sides_of_the_split() -> None:
    sides = [own("Ask one?", HELDOUT), own("Ask two?", TRAIN)]
    taken, lost = split(taking(sides).of_run(couple("Ask one?", "Ask two?", "g")))
    assert (taken, lost) == ([], ["split_conflict"] * 2)


def test_a_pair_and_its_mirror_are_taken_both_or_not_at_all() -> None:
    rows = couple("Please list four small birds today", "Ask two?", "g")
    kept = run_row("Ask two?", "c d", "e f", group="g")
    taken, lost = split(taking(benchmark="list four small birds").of_run([*rows, kept]))
    assert lost == ["contaminated", "contaminated"]
    assert [row["pair_id"] for row in taken] == [kept["pair_id"]]


def test_a_mirror_that_the_written_instruction_adds_to_costs_both() -> None:
    """The answer to "Name a bird. And a fish." also does what "Name a bird." asks: under that it is no worse one."""
    one = run_row("Name a bird. And a fish.", "a b", "c d", group="g", modified_instruction="Name a bird.")
    two = {**run_row("Name a bird.", "c d", "a b", group="g", modified_instruction="Name a bird. And a fish.")}
    two["instruction_id"] = one["instruction_id"]
    rows = [{**one, "mirror": two["pair_id"]}, {**two, "mirror": one["pair_id"]}]
    gate = Gate(heuristics=True)
    assert split(taking(gate=gate).of_run(rows))[1] == ["adds_to_original"] * 2
    assert split(taking(gate=gate).of_run([one]))[1] == [], "without a mirror the shorter one was asked for"


def test_real_instructions_are_not_asked_whether_they_are_any() -> None:
    rows = couple("Name a bird.", "Quiet birds of the northern woods", "g")
    gate = Gate(heuristics=True)
    assert split(taking(gate=gate).of_run(rows))[1] == ["not_an_instruction"] * 2
    neighbours = [{**row, "strategy": "neighbour_instruction"} for row in rows]
    assert split(taking(gate=gate).of_run(neighbours))[1] == []


def test_modified_instructions_are_checked_where_that_is_asked() -> None:
    grams = Contamination(4)
    grams.add(["list four small birds"])
    rows = couple("Ask one?", "Please list four small birds today", "g")
    plain = GivenPairs(Splits(part(), []), Contamination(4), Gate())
    kept, _ = split(plain.of_run([rows[0]]))
    assert len(kept) == 1
    checking = GivenPairs(Splits(part(), []), Contamination(4), Gate(), generated=grams)
    assert split(checking.of_run([rows[0]]))[1] == ["contaminated_modified"]


def test_responses_are_checked_where_that_is_asked(tmp_path: Path) -> None:
    """An n-gram of a benchmark costs the pair, a short prompt of one inside a response does not."""
    grams = Contamination(4, min_words=3)
    grams.add(["list four small birds", "grow red tulips"])
    told = {"chosen": "I could list four small birds.", "rejected": "I grow red tulips."}
    path = written(tmp_path / "p.jsonl", {**PAIR, "chosen": told["chosen"]}, {**PAIR, "rejected": told["rejected"]})
    checking = GivenPairs(Splits(part(), []), Contamination(4), Gate(), generated=grams)
    kept, lost = split(checking.of_file(path))
    assert ([row["rejected"] for row in kept], lost) == ([told["rejected"]], ["contaminated_response"])
    plain = GivenPairs(Splits(part(), []), Contamination(4), Gate())
    assert split(plain.of_file(path))[1] == []


def test_a_run_without_committed_pairs_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pairs.from_run: .* holds no committed pairs"):
        table_of_run(str(tmp_path))
