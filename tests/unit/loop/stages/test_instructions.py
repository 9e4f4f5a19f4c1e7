"""The instructions reader: what is kept, and the reason of every row that is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest

from ray_app.base.ngrams import Contamination
from ray_app.base.schema import HELDOUT, TRAIN, content_id, unpack_text
from ray_app.errors import InputError
from ray_app.loop.data_settings import InstructionSettings
from ray_app.loop.instruction_rows import Reader, read_source, toxic
from ray_app.loop.stages import instructions
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.shards import column_values
from ray_app.run.storage import read_parquet

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures"
WILDCHAT = {
    "source": str(FIXTURES / "wildchat.parquet"),
    "conversation_column": "conversation",
    "id_column": "conversation_hash",
    "category_column": None,
}
Row = dict[str, Any]


def part(**settings: Any) -> InstructionSettings:
    return InstructionSettings(**{"source": "prompts.jsonl", **settings})


def read(
    rows: Iterable[Mapping[str, Any]], settings: InstructionSettings | None = None, grams: Contamination | None = None
) -> tuple[list[Row], dict[str, str]]:
    """(kept rows, {id: reason} of the others)."""
    reader = Reader(settings or part(), grams or Contamination(13))
    kept, lost = [], {}
    for row, fault in reader.rows(rows):
        assert (row is None) != (fault is None)
        if row is not None:
            kept.append(row)
        elif fault is not None:
            assert fault["stage"] == "instructions"
            lost[fault["id"]] = fault["reason"]
    return kept, lost


def test_a_kept_row_has_every_column() -> None:
    (row,), lost = read([{"id": "x1", "instruction": "Name a bird.", "category": "other", "language": "English"}])
    identity = content_id("Name a bird.")
    assert not lost
    assert row == {
        "instruction_id": identity,
        "text": "Name a bird.",
        "source": "prompts.jsonl",
        "category": "other",
        "complexity": None,
        "language": "English",
        "split": row["split"],
    }
    (other,), _ = read([{"instruction": "Name a fish.", "source": "a survey"}], part(category_column=None))
    assert (other["source"], other["category"]) == ("a survey", None)


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        (None, "empty_instruction"),
        ("", "empty_instruction"),
        (" \n\t", "empty_instruction"),
        ([], "empty_instruction"),
        (7, "not_a_text"),
        ({"role": "user", "content": "x"}, "not_a_text"),
        ([1, 2], "not_a_text"),
        ([{"role": "user"}], "not_a_text"),
        ("x" * 51, "too_long"),
        ([{"role": "user", "content": "x" * 51}], "too_long"),
    ],
)
def test_a_text_that_is_none_is_quarantined(instruction: Any, reason: str) -> None:
    rows = [{"id": "bad", "instruction": instruction}, {"id": "good", "instruction": "x" * 50}]
    kept, lost = read(rows, part(max_characters=50))
    assert lost == {"bad": reason}
    assert [row["text"] for row in kept] == ["x" * 50]


def test_a_conversation_is_kept_as_messages() -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    (row,), _ = read([{"instruction": messages}])
    assert unpack_text(row["text"]) == messages
    assert row["instruction_id"] == content_id(messages)


def test_equal_content_is_a_duplicate_whatever_its_id() -> None:
    rows = [{"id": str(i), "instruction": text} for i, text in enumerate(["a", "b", "a", "a "])]
    kept, lost = read(rows)
    assert [row["text"] for row in kept] == ["a", "b", "a "]
    assert lost == {"2": "duplicate"}


def test_an_id_that_occurs_twice_is_a_fault_of_the_file() -> None:
    path = str(FIXTURES / "duplicate_ids.jsonl")
    settings = part(source=path)
    with pytest.raises(InputError) as fault:
        read(read_source(settings), settings)
    assert str(fault.value) == f"{path} row 4 column 'id': id 'd2' occurs twice"
    unnamed = settings.model_copy(update={"id_column": None})
    assert len(read(read_source(unnamed), unnamed)[0]) == 5


def test_ids_of_other_types_and_missing_ones() -> None:
    texts = [{"instruction": text} for text in "abc"]
    assert len(read(texts)[0]) == 3
    assert len(read([{**row, "id": None} for row in texts])[0]) == 3
    with pytest.raises(InputError, match="id '7' occurs twice"):
        read([{**texts[0], "id": 7}, {**texts[1], "id": "7"}])


def test_an_id_that_occurs_twice_in_a_dataset_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(list[Row]):
        column_names = ("id", "instruction")

    rows = Stream({"id": identity, "instruction": text} for identity, text in (("a", "x\x1e"), ("b", "y"), ("a", "z")))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    settings = part(source="hf:someone/prompts")
    with pytest.raises(InputError, match=r"^hf:someone/prompts row 3 column 'id': id 'a' occurs twice$"):
        read(read_source(settings), settings)
    del rows[2]
    assert [row["text"] for row in read(read_source(settings), settings)[0]] == ["x", "y"]
    with pytest.raises(InputError, match="has no column 'question'; it has id, instruction"):
        list(read_source(part(source="hf:someone/prompts", text_column="question")))


def test_a_dataset_of_the_hub_that_breaks_off_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        column_names = ("instruction",)

        def __iter__(self) -> Iterator[Row]:
            yield {"instruction": "x"}
            raise ConnectionError("reset by peer\nand more")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Stream())
    with pytest.raises(InputError, match=r"^dataset someone/prompts broke off: reset by peer$"):
        list(read_source(part(source="hf:someone/prompts")))


def test_labels_that_are_no_names_cost_nothing_else() -> None:
    texts = [{"instruction": text, "category": ["x"]} for text in "abcd"]
    languages = ["English", ["en"], 3, True]
    rows, lost = read([{**text, "language": label} for text, label in zip(texts, languages, strict=True)])
    assert [row["language"] for row in rows] == ["English", None, "3", None], "a class of `datasets` is a number"
    assert {row["category"] for row in rows} == {None}
    assert not lost
    kept, _ = read([{**texts[1], "language": ["en"]}], part(languages=["en"]))
    assert kept == []


def test_conversations_that_no_generator_can_answer_are_quarantined() -> None:
    def said(role: str, content: Any) -> Row:
        return {"role": role, "content": content}

    odd = [
        [said("user", None)],
        [said("user", "q"), said("assistant", "a")],
        [said("user", "q"), said("tool", "7")],
        [said("user", [{"type": "text", "text": "Name a fish."}])],
    ]
    rows, lost = read([{"instruction": text} for text in odd])
    assert [row["text"].partition("messages:")[2] for row in rows] == ['[{"role": "user", "content": "Name a fish."}]']
    assert list(lost.values()) == ["not_a_text", "ends_with_assistant", "unknown_role"]


def test_wildchat_gives_first_user_turns() -> None:
    settings = part(**WILDCHAT)
    rows = list(read_source(settings))
    kept, lost = read(rows, settings)
    assert [row["text"] for row in kept] == [
        "How do I stop a tap from dripping?",
        "Write a limerick about a goat.",
        "Explain what a mutex is.",
        "Suggest a name for a boat.",
        "Was kostet ein Brief nach Spanien?",
        "写一首关于秋天的短诗。",
        "Rewrite for NAME_1: the meeting is moved.",
        "What is the plural of 'ox'?",
    ]
    assert Counter(lost.values()) == {"toxic": 2, "duplicate": 1, "empty_instruction": 3}
    assert set(lost) <= {row["conversation_hash"] for row in rows}
    assert {row["language"] for row in kept} == {"English", "German", "Chinese"}


def test_languages_and_toxic_are_filters_that_can_be_set() -> None:
    settings = part(**WILDCHAT, languages=("German", "Chinese"), drop_toxic=False)
    kept, lost = read(read_source(settings), settings)
    assert [row["language"] for row in kept] == ["German", "Chinese"]
    assert Counter(lost.values()) == {"language_filter": 9, "empty_instruction": 3}
    settings = part(**WILDCHAT, drop_toxic=False)
    assert "toxic" not in read(read_source(settings), settings)[1].values()


def test_toxic_looks_at_the_row_and_its_first_user_turn() -> None:
    def turns(*flags: bool) -> list[Row]:
        return [{"role": "user" if i % 2 == 0 else "assistant", "toxic": flag} for i, flag in enumerate(flags)]

    assert toxic({"toxic": True}, None)
    assert toxic({"toxic": False, "conversation": turns(True, False)}, "conversation")
    assert not toxic({"conversation": turns(False, True, True)}, "conversation")
    assert not toxic({"conversation": None}, "conversation")


def test_contaminated_rows_are_quarantined_and_counted() -> None:
    grams = Contamination(4)
    grams.add(["Please name the three largest birds of Europe."])
    rows = [
        {"id": "1", "instruction": "Tell me: NAME THE THREE LARGEST animals!"},
        {"id": "2", "instruction": "Name the three smallest birds."},
        {"id": "3", "instruction": "Tell me: NAME THE THREE LARGEST animals!"},
    ]
    kept, lost = read(rows, grams=grams)
    assert [row["text"] for row in kept] == ["Name the three smallest birds."]
    assert lost == {"1": "contaminated", "3": "duplicate"}


def test_the_split_follows_from_the_content_and_the_fraction() -> None:
    rows = [{"instruction": f"Question {i}?"} for i in range(2000)]
    split = {row["text"]: row["split"] for row in read(rows, part(heldout_fraction=0.2))[0]}
    assert Counter(split.values())[HELDOUT] == pytest.approx(400, abs=80)
    again = {row["text"]: row["split"] for row in read(reversed(rows), part(heldout_fraction=0.2))[0]}
    assert again == split
    more = {row["text"]: row["split"] for row in read(rows, part(heldout_fraction=0.4))[0]}
    assert all(more[text] == HELDOUT for text, side in split.items() if side == HELDOUT)
    assert {row["split"] for row in read(rows, part(heldout_fraction=0))[0]} == {TRAIN}


def test_the_source_must_have_the_column_with_its_type(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"id": "1", "instruction": "x", "conversation": "no list"}) + "\n")
    with pytest.raises(InputError, match="no column 'text'"):
        list(read_source(part(source=str(path), text_column="text")))
    with pytest.raises(InputError, match="'conversation' holds str, not a list"):
        list(read_source(part(source=str(path), conversation_column="conversation")))


def source_file(path: Path, *texts: str) -> str:
    path.write_text("".join(json.dumps({"id": f"i{i}", "instruction": text}) + "\n" for i, text in enumerate(texts)))
    return str(path)


def test_the_stage_counts_what_it_read_kept_and_dropped(context: Any, tmp_path: Path) -> None:
    gold = {"id": "g", "instruction": "one two three four five", "response_a": "x", "response_b": "y", "label": "A"}
    (tmp_path / "gold.jsonl").write_text(json.dumps(gold) + "\n")
    source = source_file(tmp_path / "in.jsonl", "zero one two three four", "", "b", "b", "c")
    run = context(
        instructions={"source": source, "decontamination": {"ngram": 4}},
        evaluation={"validation": f"validation={tmp_path / 'gold.jsonl'}"},
    )
    for _ in range(2):  # what an interrupted attempt left is not counted
        result = instructions.run(run)
        assert (result.rows_in, result.rows_out) == (5, 2)
        assert result.quarantined == {"contaminated": 1, "empty_instruction": 1, "duplicate": 1}
        assert list(column_values(run.folder.stage_dir("instructions"), "text")) == ["b", "c"]
    off = context(instructions={"source": source, "decontamination": {"enabled": False}}, name="other")
    assert instructions.run(off).quarantined == {"empty_instruction": 1, "duplicate": 1}


def test_the_limit_counts_kept_rows(context: Any, tmp_path: Path) -> None:
    source = source_file(tmp_path / "in.jsonl", "a", "", "b", "c", "d")
    run = context(instructions={"source": source}, limit=2)
    result = instructions.run(run)
    assert (result.rows_in, result.rows_out, result.quarantined) == (3, 2, {"empty_instruction": 1})


def test_a_count_is_drawn_after_every_filter(context: Any, tmp_path: Path) -> None:
    source = source_file(tmp_path / "in.jsonl", *(f"Say {word}." for word in "abcdefgh"), "", "Say a.")
    run = context(instructions={"source": source, "count": 3})
    for _ in range(2):  # what an interrupted attempt left is not counted
        result = instructions.run(run)
        assert (result.rows_in, result.rows_out, result.extra["not_chosen"]) == (10, 3, 5)
        assert result.quarantined == {"empty_instruction": 1, "duplicate": 1}
        texts = list(column_values(run.folder.stage_dir("instructions"), "text"))
        assert len(set(texts)) == 3
    other = context(instructions={"source": source, "count": 3}, name="other", seed=99)
    instructions.run(other)
    assert set(column_values(other.folder.stage_dir("instructions"), "text")) != set(texts)


def test_a_count_is_drawn_as_evenly_from_the_categories_as_they_have(context: Any, tmp_path: Path) -> None:
    kinds = ["coding"] * 20 + ["other"] * 3 + ["brainstorming"]
    rows = [{"id": f"i{i}", "instruction": f"Say {i}.", "category": kind} for i, kind in enumerate(kinds)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def drawn(name: str, **more: Any) -> Counter[str]:
        run = context(name=name, instructions={"source": str(tmp_path / "in.jsonl"), "count": 8, **more})
        assert instructions.run(run).extra["not_chosen"] == 16
        return Counter(column_values(run.folder.stage_dir("instructions"), "category"))

    assert drawn("even", balance_categories=True) == {"coding": 4, "other": 3, "brainstorming": 1}
    assert drawn("plain")["coding"] > 4, "as the source has them"


def test_a_count_is_drawn_of_what_was_classified(context: Any, asked: list[str], tmp_path: Path) -> None:
    """After the filters of the classifier, evenly from its categories, and with what it said."""
    source = source_file(tmp_path / "in.jsonl", *(f"Say {i}." for i in range(60)))
    said = [f"\nCategory: {kind}\nComplexity: 7" for kind in ("coding", "coding", "coding", "other", "brainstorming")]
    part = {"source": source, "classify": True, "keep_categories": ["coding", "other"], "count": 12}
    run = context(instructions={**part, "balance_categories": True}, generator={"script": {"answers": said}})
    for _ in range(2):
        result = instructions.run(run)
        assert len(asked) == 60, "every candidate is classified, and none twice"
        lost = result.quarantined["category_filter"]
        assert (result.rows_in, result.rows_out, result.extra["not_chosen"]) == (60, 12, 60 - lost - 12)
        directory = run.folder.stage_dir("instructions")
        assert Counter(column_values(directory, "category")) == {"coding": 6, "other": 6}
        assert set(column_values(directory, "complexity")) == {7}
        assert len(set(column_values(directory, "text"))) == 12


def test_newer_settings_are_covered_where_they_change_something(settings: Any) -> None:
    base = covered(settings())
    assert "count" not in base["instructions"]
    assert covered(settings(instructions={"near_similarity": 0.5, "balance_categories": True})) == base
    for more in ({"near_duplicates": "drop"}, {"count": 5}):
        assert covered(settings(instructions=more)) != base


def covered(settings: Any) -> dict[str, Any]:
    return instructions.settings_of(settings, Inputs(settings))


def test_settings_that_change_no_row_are_not_in_the_fingerprint(settings: Any) -> None:
    base = covered(settings())
    assert covered(settings(instructions={"classify_sampling": {"max_tokens": 5}})) == base
    assert covered(settings(prompts={"classify": "judge_single"})) == base
    classified = settings(instructions={"classify": True})
    assert covered(classified)["generator"] == classified.generator.identity("scripted")
    clean = settings(instructions={"decontamination": {"enabled": False}})
    assert covered(clean) != base
    assert instructions.inputs_of(settings(instructions={"source": "hf:a/b"})) == {"hf:a/b": "hf:a/b"}


def test_answers_are_a_column_where_they_are_asked_for(context: Any, settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    values = ["9 + 9\n#### 18", 3, 0.5, None, True]
    file.write_text("".join(json.dumps({"instruction": f"Ask {i}", "gold": v}) + "\n" for i, v in enumerate(values)))
    run = context(instructions={"source": str(file), "answer_column": "gold"})
    instructions.run(run)
    found = list(column_values(run.folder.stage_dir("instructions"), "answer"))
    assert found == ["9 + 9\n#### 18", "3", "0.5", None, None]
    few = context(name="few", instructions={"source": str(file), "answer_column": "gold", "count": 5})
    instructions.run(few)
    assert sorted(map(str, column_values(few.folder.stage_dir("instructions"), "answer"))) == sorted(map(str, found))
    plain = context(name="plain", instructions={"source": str(file)})
    instructions.run(plain)
    (shard,) = Path(plain.folder.stage_dir("instructions")).glob("shard-*")
    assert "answer" not in read_parquet(str(shard)).column_names, "the table is as it was"
    assert "answer_column" not in covered(settings())["instructions"]
    assert covered(settings(instructions={"answer_column": "gold"}))["instructions"]["answer_column"] == "gold"
    with pytest.raises(InputError, match="no column 'answer'"):
        instructions.run(context(name="none", instructions={"source": str(file), "answer_column": "answer"}))


def test_short_benchmark_prompts_inside_instructions_have_a_reason_of_their_own(context: Any, tmp_path: Path) -> None:
    gold = {"id": "g", "instruction": "one two three four five", "response_a": "x", "response_b": "y", "label": "A"}
    (tmp_path / "gold.jsonl").write_text(json.dumps(gold) + "\n")
    source = source_file(tmp_path / "in.jsonl", "zero one two three four five six", "one two three four five", "b")

    def dropped(name: str, **decontamination: Any) -> dict[str, int]:
        run = context(
            name=name,
            instructions={"source": source, "decontamination": decontamination},
            evaluation={"validation": f"validation={tmp_path / 'gold.jsonl'}"},
        )
        return instructions.run(run).quarantined

    assert dropped("off") == {"contaminated": 1}
    assert dropped("on", min_words=5) == {"contaminated": 1, "holds_benchmark_prompt": 1}
    assert dropped("long", min_words=6) == {"contaminated": 1}


def test_newer_parts_of_decontamination_are_covered_where_they_change_something(settings: Any) -> None:
    base = covered(settings())["instructions"]["decontamination"]
    assert set(base) == {"enabled", "ngram"}
    assert (
        covered(settings(instructions={"decontamination": {"generated": True}}))["instructions"]["decontamination"]
        == base
    ), "the pairs' stage covers that"
    shorter = covered(settings(instructions={"decontamination": {"min_words": 5}}))
    assert shorter["instructions"]["decontamination"]["min_words"] == 5


def test_near_duplicates_are_dropped_or_kept_on_one_side() -> None:
    letter = "Write a short letter to the mayor of a town of {} people that asks for a new bridge over the river"
    rows = [{"id": str(n), "instruction": letter.format(n)} for n in range(40)]
    rows.append({"id": "other", "instruction": "Name a bird."})

    def kept(how: str) -> tuple[list[Row], Counter[str]]:
        reader = Reader(part(near_duplicates=how, near_similarity=0.5, heldout_fraction=0.5), Contamination(13))
        found = list(reader.rows(rows))
        return [row for row, _ in found if row], Counter(fault["reason"] for _, fault in found if fault)

    every, lost = kept("keep")
    assert (len(every), lost) == (41, Counter())
    assert len({row["split"] for row in every[:40]}) == 2
    together, lost = kept("one_split")
    assert (len(together), lost) == (41, Counter())
    assert len({row["split"] for row in together[:40]}) == 1
    first, lost = kept("drop")
    assert (len(first), lost) == (2, Counter({"near_duplicate": 39}))


CHAIN = (
    "Write a short letter to the mayor of our town that asks for a new bridge over the river near the old mill",
    "Write a short letter to the mayor of our town that asks for a new bridge over the lake near the old church",
    "Write a long poem for the mayor of our town that asks for a new bridge over the lake near the old church",
)


def test_a_chain_of_near_duplicates_has_one_split_in_every_order() -> None:
    """The first and the last are not alike: held out apart from the middle one, a template would be known."""
    first, middle, last = CHAIN
    other = [f"Say {n} times the word {chr(97 + n)}{chr(98 + n)}." for n in range(20)]
    for texts in ([first, middle, last], [first, last, middle], [last, middle, first]):
        settings = part(near_duplicates="one_split", near_similarity=0.5, heldout_fraction=0.5)
        kept, lost = read([{"instruction": text} for text in (*texts, *other)], settings)
        assert not lost
        assert [row["text"] for row in kept] == [*texts, *other]
        assert len({row["split"] for row in kept if row["text"] in CHAIN}) == 1
    apart = {row["split"] for row in read([{"instruction": text} for text in CHAIN], part(heldout_fraction=0.5))[0]}
    assert apart == {TRAIN, HELDOUT}, "by their own hashes they lie on both sides"


def test_the_limit_counts_kept_rows_where_splits_are_known_last(context: Any, tmp_path: Path) -> None:
    source = source_file(tmp_path / "in.jsonl", "a b c", "", "d e f", "g h i", "j k l")
    run = context(instructions={"source": source, "near_duplicates": "one_split"}, limit=2)
    result = instructions.run(run)
    assert (result.rows_in, result.rows_out, result.quarantined) == (3, 2, {"empty_instruction": 1})
    assert list(column_values(run.folder.stage_dir("instructions"), "text")) == ["a b c", "d e f"]
