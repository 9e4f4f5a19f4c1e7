"""The requests of the judging benchmark: the same for bare vLLM and for ray_app, of mixed lengths, from a seed.

Texts are put together from the demo's, or are real pairs: of files as `judge` reads them (`data`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import PAIRS, TRAIN, pair_id
from ray_app.engine.base import Sampling
from ray_app.engine.settings import EngineSettings
from ray_app.generation.programs.judge import JudgeProgram, Mode

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "configs" / "demo"
SHARD_ROWS = 256


@dataclass(frozen=True)
class Spec:
    """One comparison. `pairs` × 2 orders × `samples` requests in mode `all`."""

    model: str
    device: str = "cpu"
    data: str = ""  # a folder of pairwise files (*.jsonl): their pairs, those without a label left out
    replicas: int = 1
    tensor_parallel: int = 1
    replicas_per_gpu: int = 1
    pairs: int = 48
    samples: int = 2
    repeats: int = 3
    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 64
    max_model_len: int = 2048
    max_num_seqs: int = 64
    sentences: tuple[int, int] = (1, 12)  # in the shortest and the longest response
    seeded: bool = True
    stop: bool = True  # at the verdict, as the product does
    prompt: str = str(Path(__file__).parent / "prompt.yaml")
    cpu_threads: int = 2
    vllm: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return 2 * self.pairs * self.samples

    def engine(self) -> EngineSettings:
        """The engine settings of both sides."""
        names = {f.name for f in dataclasses.fields(self)} & set(EngineSettings.model_fields)
        return EngineSettings(**{name: getattr(self, name) for name in names})

    def sampling(self) -> Sampling:
        stop = ("[[A]]", "[[B]]") if self.stop else ()
        return Sampling(self.temperature, self.top_p, self.max_tokens, stop, bool(stop))

    def program(self, mode: Mode = "all", repeat: int = 0) -> JudgeProgram:
        return JudgeProgram(
            prompt=load_prompt(self.prompt),
            sampling=self.sampling(),
            mode=mode,
            samples=self.samples,
            judge=self.model,
            run_seed=repeat,
            iteration=1,
            stage="judgments",
            key=("pair_id", "order"),
        )


def make_pairs(spec: Spec, repeat: int) -> Iterator[dict[str, Any]]:
    """Rows of the pairs table; other texts in every repeat, so that no prefix cache carries over."""
    if spec.data:
        yield from real_pairs(spec, repeat)
        return
    draw = random.Random(f"pairs {repeat}")
    instructions = [row["instruction"] for row in _lines("instructions")]
    sentences = [row[side] for row in _lines("validation") for side in ("response_a", "response_b")]
    for _ in range(spec.pairs):
        sides = [" ".join(draw.choices(sentences, k=draw.randint(*spec.sentences))) for _ in range(2)]
        yield pair_row(f"{draw.choice(instructions)} (Question {draw.randrange(10**6)})", *sides)


def real_pairs(spec: Spec, repeat: int) -> Iterator[dict[str, Any]]:
    """Labelled pairs of `spec.data`, mixed by a seed; each repeat has its own. Raises ValueError for too few of them.

    Pairs of more characters than the context has tokens are left out, so that every prompt and answer fits.
    """
    rows = [row for file in sorted(Path(spec.data).glob("*.jsonl")) for row in _rows(file)]
    texts = {pair_row(*_in_order(row))["pair_id"]: _in_order(row) for row in rows if row.get("label")}
    fitting = [found for found in texts.values() if sum(map(len, found)) <= spec.max_model_len]
    random.Random("real pairs").shuffle(fitting)
    begin = (repeat + 1) * spec.pairs  # repeat -1 warms up
    if len(fitting) < begin + spec.pairs:
        raise ValueError(f"{spec.data} has {len(fitting)} pairs that fit: too few for {spec.pairs} in repeat {repeat}")
    for found in fitting[begin : begin + spec.pairs]:
        yield pair_row(*found)


def _in_order(row: Mapping[str, Any]) -> tuple[str, str, str]:
    a, b = row["response_a"], row["response_b"]
    return (row["instruction"], a, b) if row["label"] == "A" else (row["instruction"], b, a)


def pair_row(instruction: str, chosen: str, rejected: str) -> dict[str, Any]:
    """A row of the pairs table."""
    return {
        "pair_id": pair_id(instruction, chosen, rejected, "benchmark", "benchmark"),
        "instruction_id": instruction[:40],
        "instruction": instruction,
        "modified_instruction": "",
        "chosen": chosen,
        "rejected": rejected,
        "generator": "benchmark",
        "strategy": "benchmark",
        "split": TRAIN,
        "category": None,
        "complexity": None,
    }


@functools.cache
def _lines(name: str) -> list[dict[str, Any]]:
    return _rows(DEMO / f"{name}.jsonl")


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]


def write_pairs(spec: Spec, repeat: int, folder: Path) -> Path:
    """The pairs table of one repeat, in shards as the product writes them."""
    target = folder / f"pairs-{repeat}"
    target.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    shard = 0
    for row in make_pairs(spec, repeat):
        rows.append(row)
        if len(rows) == SHARD_ROWS:
            pq.write_table(pa.Table.from_pylist(rows, schema=PAIRS), target / f"shard-{shard:05d}.parquet")
            rows, shard = [], shard + 1
    if rows:
        pq.write_table(pa.Table.from_pylist(rows, schema=PAIRS), target / f"shard-{shard:05d}.parquet")
    return target
