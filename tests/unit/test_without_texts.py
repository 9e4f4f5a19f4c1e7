"""A run without its texts: nothing of them is left, and alarms count the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_app.base.schema import PAIRS, TRAIN_SFT
from ray_app.findings.facts import explanation_facts, pair_facts
from ray_app.generation.pair_texts import is_meta_talk, is_refusal

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "h100_modified"
SECRETS = ("zebra", "quokka", "walrus", "narwhal", "okapi")
PROMPT = "<instruction>\nWhat is a zebra?\n</instruction>\n\n<response_a>\nA quokka.\n</response_a>\n\nWhich is better?"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import without_texts  # type: ignore[import-not-found]

    return without_texts  # type: ignore[no-any-return]


def pair(number: int, chosen: str, rejected: str) -> dict[str, Any]:
    texts = {"instruction": "What is a zebra?", "modified_instruction": "Where lives a walrus?"}
    return {"pair_id": f"p{number}", "category": "okapi lore", "chosen": chosen, "rejected": rejected, **texts}


def trained(number: int, said: str) -> dict[str, Any]:
    prompt = [{"role": "system", "content": "You compare."}, {"role": "user", "content": PROMPT}]
    completion = [{"role": "assistant", "content": said}]
    return {"pair_id": f"p{number}", "order": "chosen_first", "sample": 0, "iteration": 1, "prompt": prompt,
            "completion": completion}  # fmt: skip


PAIR_ROWS = [
    pair(0, "A quokka is a small animal that smiles in pictures.", "A walrus is large."),
    pair(
        1,
        "I'm ready to help with the narwhal!",
        "I'm happy to assist you, my walrus friend, with anything you may ask.",
    ),
    pair(2, "I'm sorry, but narwhal.", "Quokka"),
    pair(3, "Okapi", "Walrus"),
]
TRAINED = [
    trained(0, "[[A]]"),
    trained(1, "The narwhal is meant. [[B]]"),
    trained(2, "the NARWHAL is meant [[A]]"),
    trained(3, "The quokka smiles [[A]]"),
    trained(4, "The better is [[A]]"),
]


@pytest.fixture
def copied(script: ModuleType, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    for folder, rows, schema in (("pairs", PAIR_ROWS, PAIRS), ("iter_01/train_set", TRAINED, TRAIN_SFT)):
        (run / folder).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), run / folder / "shard-00000.parquet")
    line = {"stage": "train_set", "iteration": 1, "extra": {"pass_rate_by_category": {"okapi lore": {"value": 1.0}}}}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (run / "run.json").write_text(json.dumps({"settings": {"seed": 0}}))
    script.copy(run, tmp_path / "copy", "Which is better?")
    return tmp_path / "copy"


def rows(file: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(file).to_pylist())


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def test_no_text_of_the_data_is_left(copied: Path) -> None:
    kept = [text for file in copied.rglob("*.parquet") for text in strings(rows(file))]
    kept += [(copied / name).read_text() for name in ("metrics.jsonl", "run.json")]
    assert "You compare." in kept
    assert any("Which is better?" in text and "<response_a>" in text for text in kept)
    assert not [text for text in kept if any(secret in text.lower() for secret in SECRETS)]


def test_alarms_count_the_same(copied: Path) -> None:
    assert pair_facts(rows(copied / "pairs" / "shard-00000.parquet")) == pair_facts(PAIR_ROWS)
    before, after = (
        explanation_facts(TRAINED),
        explanation_facts(rows(copied / "iter_01/train_set/shard-00000.parquet")),
    )
    assert (after.bare, after.distinct, after.said) == (before.bare, before.distinct, before.said)


def test_a_judgment_in_the_prompts_own_words_stays(copied: Path) -> None:
    said = [row["completion"][0]["content"] for row in rows(copied / "iter_01/train_set/shard-00000.parquet")]
    assert said == [
        "[[A]]",
        "[judgment of 4 words left out, wording 1] [[B]]",
        "[judgment of 4 words left out, wording 1] [[A]]",
        "[judgment of 3 words left out, wording 2] [[A]]",
        "The better is [[A]]",
    ]


def test_the_committed_run_holds_none_but_stand_ins() -> None:
    """Every instruction and response that was kept of the H100 run says that it was left out."""
    texts = [
        row[name]
        for file in FIXTURE.rglob("shard-*.parquet")
        for row in rows(file)
        for name in ("instruction", "modified_instruction", "chosen", "rejected", "first", "second")
        if name in row
    ]
    assert len(texts) > 1000
    openings = [text for text in texts if "left out]" not in text and len(text.strip()) > 1]
    assert all(is_meta_talk(text) or is_refusal(text) for text in openings)
