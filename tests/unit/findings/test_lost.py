"""Lost rows, as a reader can use them."""

from __future__ import annotations

from collections.abc import Callable

from ray_app.findings.lost import LostFrom, details, lost_samples, told, with_instructions
from ray_app.findings.run_tables import RunTables
from ray_app.findings.samples import Place

SETTINGS = {"pairs": {"sampling": {"max_tokens": 128}, "modify_sampling": {"max_tokens": 96}}}


def test_a_record_becomes_named_fields() -> None:
    detail = str({"modified_instruction": "Ask\n\nmore", "chosen": "it's", "rejected": None, "parts": ["a", "b"]})
    assert details(detail) == {
        "modified instruction": "Ask\n\nmore",
        "chosen": "it's",
        "rejected": "",
        "parts": "a\n\nb",
    }


def test_a_record_that_was_cut_off_is_read_as_far_as_it_goes() -> None:
    whole = str({"chosen": "one \n two", "rejected": 'it\'s "long" ' + "x" * 50})
    for length in range(whole.index("'rejected': ") + 14, len(whole)):
        found = details(whole[:length])
        assert found["chosen"] == "one \n two"
        assert found["rejected"].endswith("…") or length == len(whole) - 1
    assert details(str({"responses": [("text", True), ("long " * 9, None)]})[:40])["responses"].startswith("text: True")


def test_a_lost_unit_has_the_instruction_of_its_pair(runs: Callable[[str], str]) -> None:
    tables = RunTables(runs("pairwise"))
    pair = next(tables.pairs())
    row = {"id": f"{pair['pair_id']}/chosen_first", "reason": "timeout", "detail": "no answer"}
    made = list(lost_samples([row, {**row, "id": "x/y"}], LostFrom("judgments", Place(1), ""), [], SETTINGS))
    known, unknown = with_instructions(tables, made)
    assert dict(known["fields"])["instruction"] == pair["instruction"]
    assert unknown == made[1]


def test_other_details_are_shown_as_they_are() -> None:
    assert details("category=coding complexity=3 text='a\\nb'") == {
        "category": "coding",
        "complexity": "3",
        "answer": "a\nb",
    }
    assert details("{not a record") == {"detail": "{not a record"}
    assert details("") == {"detail": ""}


def test_which_limit_cut_it_off() -> None:
    limit = "the chosen response was cut off by its limit, pairs.sampling.max_tokens = 128"
    assert told("cut_off_chosen", SETTINGS) == limit
    assert told("cut_off_modified", SETTINGS).endswith("pairs.modify_sampling.max_tokens = 96")
    assert told("cut_off_modified", {"pairs": {"modify_sampling": None}}).endswith("pairs.sampling.max_tokens")
    assert told("equal_responses", {}) == "equal responses"


def test_a_lost_row_says_where_and_why() -> None:
    row = {"id": "i", "stage": "pairs", "reason": "cut_off_chosen", "detail": "{'chosen': 'a'}"}
    (made,) = lost_samples([row], LostFrom("train_set", Place(2, "dpo"), ""), ["at random"], SETTINGS)
    assert [name for name, _ in made["fields"]] == ["why it was lost", "chosen"]
    assert made["tags"] == ["cut_off_chosen", "lost in train set", "iteration 2", "DPO"]
