"""The tables of a run of many pairs, as scripted engines would leave them, without running any.

Texts come from a pool, so that 100,000 pairs are written in seconds; ids, verdicts and what is kept differ by row.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_app.base.schema import INSTRUCTIONS, JUDGMENTS, PAIRS, QUARANTINE, TRAIN_SFT, VOTES

Row = dict[str, Any]
SHARD = 4096
ORDERS = ("chosen_first", "rejected_first")
CATEGORIES = [f"category {number}" for number in range(40)]
ROWS_OF_A_SET = 400


class Texts:
    """Sentences of random words, a pool of each length."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self._words = [f"word{number}" for number in range(5000)]
        self._pools: dict[int, list[str]] = {}

    def __call__(self, words: int) -> str:
        made = [" ".join(self.random.choices(self._words, k=words)) for _ in range(0 if words in self._pools else 2000)]
        return self.random.choice(self._pools.setdefault(words, made))


def write(folder: Path, pairs: int) -> None:
    """A run folder of one iteration with so many pairs, each judged in both orders, and two evaluation sets."""
    texts = Texts()
    ids = [f"{number:016x}" for number in range(pairs)]
    shards(folder / "instructions", INSTRUCTIONS, instructions(ids, texts))
    shards(folder / "pairs", PAIRS, made_pairs(ids, texts))
    lost = ({"id": f"lost-{i}", "stage": "pairs", "reason": "cut_off_chosen", "detail": texts(80)} for i in range(300))
    shards(folder / "pairs", QUARANTINE, lost, "quarantine")
    shards(folder / "iter_01" / "judgments", JUDGMENTS, judgments(ids, texts))
    shards(folder / "iter_01" / "train_set", TRAIN_SFT, training_rows(ids, texts))
    for iteration in (0, 1):
        for name in ("validation", "heldout"):
            shards(folder / f"iter_{iteration:02d}" / "evaluation" / name, VOTES, votes(name, iteration, texts))
    lines = metrics(pairs)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "run.json").write_text(json.dumps({"settings": {"name": "large", "seed": 0}}))


def shards(folder: Path, schema: pa.Schema, rows: Iterator[Row], prefix: str = "shard") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    number, shard = 0, []
    for row in rows:
        shard.append(row)
        if len(shard) == SHARD:
            pq.write_table(pa.Table.from_pylist(shard, schema=schema), folder / f"{prefix}-{number:05d}.parquet")
            number, shard = number + 1, []
    if shard:
        pq.write_table(pa.Table.from_pylist(shard, schema=schema), folder / f"{prefix}-{number:05d}.parquet")


def instructions(ids: list[str], texts: Texts) -> Iterator[Row]:
    for number, identity in enumerate(ids):
        named = {"category": CATEGORIES[number % len(CATEGORIES)], "complexity": number % 5, "split": "train"}
        yield {"instruction_id": identity, "text": texts(20), "source": "s", "language": "en", **named}


def made_pairs(ids: list[str], texts: Texts) -> Iterator[Row]:
    for number, identity in enumerate(ids):
        yield {
            "pair_id": identity, "instruction_id": identity, "group": identity, "generator": "g",
            "instruction": texts(20), "modified_instruction": texts(20), "strategy": "modified_instruction",
            "chosen": texts(70 + number % 3), "rejected": texts(71), "split": "train",
            "category": CATEGORIES[number % len(CATEGORIES)], "complexity": number % 5,
        }  # fmt: skip


def judgments(ids: list[str], texts: Texts) -> Iterator[Row]:
    for identity in ids:
        for order in ORDERS:
            verdict = texts.random.choice(("A", "A", "B", "B", "B", None))
            right = verdict == ("A" if order == ORDERS[0] else "B")
            yield {
                "pair_id": identity, "order": order, "sample": 0, "verdict": verdict, "correct": right, "kept": right,
                "text": f"{texts(30)} [[{verdict}]]", "finish_reason": "stop", "seed": 1, "judge": "j",
                "prompt_tokens": 200, "completion_tokens": 40,
            }  # fmt: skip


def training_rows(ids: list[str], texts: Texts) -> Iterator[Row]:
    for number, identity in enumerate(ids):
        prompt, said = texts(150), f"{texts(30)} [[{'AB'[number % 2]}]]"
        yield {
            "pair_id": identity, "order": ORDERS[number % 2], "sample": 0, "iteration": 1,
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": said}],
        }  # fmt: skip


def votes(name: str, iteration: int, texts: Texts) -> Iterator[Row]:
    for number in range(ROWS_OF_A_SET):
        for order in ("ab", "ba"):
            verdict = texts.random.choice("AB")
            yield {
                "benchmark": name, "id": f"{name}-{number}", "order": order, "sample": 0, "verdict": verdict,
                "correct": texts.random.random() < 0.5 + 0.3 * iteration, "text": f"{texts(30)} [[{verdict}]]",
                "finish_reason": "stop", "judge": "j", "prompt_tokens": 200, "completion_tokens": 40,
            }  # fmt: skip


def metrics(pairs: int) -> Iterator[Row]:
    def line(stage: str, iteration: int | None, rows_in: int, rows_out: int, **more: Any) -> Row:
        zero = {
            "quarantined": {},
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "seconds": 60.0,
            "finished": "2026-01-01",
        }
        return {"stage": stage, "iteration": iteration, "rows_in": rows_in, "rows_out": rows_out, **zero, "extra": more}

    def figure(value: float, n: int = ROWS_OF_A_SET) -> Row:
        return {"value": value, "n": n, "low": value - 0.04, "high": value + 0.04}

    yield line("instructions", None, pairs, pairs)
    yield {
        **line("pairs", None, pairs + 300, pairs),
        "quarantined": {"cut_off_chosen": 300},
        "completion_tokens": 10**8,
    }
    for name in ("validation", "heldout"):
        yield line("evaluation", 0, 800, 800, set=name, headline={"accuracy": figure(0.5)})
    yield line("judgments", 1, 2 * pairs, 2 * pairs, unparsed=pairs // 3, unparsed_rate=1 / 6)
    groups = {name: figure(0.3 + number / 100, pairs // 20) for number, name in enumerate(CATEGORIES)}
    yield line(
        *("train_set", 1, 2 * pairs, pairs), rows=pairs, pairs=pairs, tried=2 * pairs, kept=pairs, keep_rate=0.5,
        kept_by_letter={"A": pairs // 2, "B": pairs - pairs // 2},
        pass_rate=0.42, pass_rate_by_category=groups, bare_verdicts=0.0, explanation_words_median=30,
    )  # fmt: skip
    yield line("training", 1, pairs, pairs, steps=1000, first_loss=2.0, last_loss=1.0)
    for name, value in (("validation", 0.8), ("heldout", 0.82)):
        yield line("evaluation", 1, 800, 800, set=name, headline={"accuracy": figure(value)})
