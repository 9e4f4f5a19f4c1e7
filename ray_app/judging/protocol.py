"""What every judging protocol has: how a judge is asked about rows, and how its answers are read.

A protocol is asked by the loop (evaluation and checkpoint selection), `evaluate`, `judge` and `judge --serve` alike;
none of them knows which one it is. Two of them judge pairs as well, which is what a judge is trained on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ray_app.base.parsers import LAST, ParserName
from ray_app.base.prompts import Prompt
from ray_app.base.schema import Message, PairwiseRow
from ray_app.base.settings_parts import SamplingSettings
from ray_app.benchmarks import Benchmark
from ray_app.engine.base import Program, UnitResult, sampling_from
from ray_app.judging.judge import Judge
from ray_app.judging.rejection_sampling import Choice, Rule
from ray_app.judging.settings import JudgingSettings
from ray_app.metrics import Outcome
from ray_app.metrics.outcome import Protocol as Orders

STAGE = "evaluation"  # of everything that is judged by votes: in seeds, quarantine rows and metrics
JUDGMENTS_STAGE = "judgments"  # of what is drawn for training


@dataclass(frozen=True)
class Voting:
    """How often a judge is asked about a row with a gold label, and in which orders."""

    generation: SamplingSettings
    votes: int = 1  # samples an order (of a response, where single responses are scored); 1 is greedy
    seed: int = 0
    early_stop: bool = True
    orders: Orders = "both_orders"
    iteration: int | None = None  # of the loop: part of every seed; None outside it
    parser: ParserName = LAST  # of verdicts


@dataclass(frozen=True)
class Questions:
    """Units of work for one table of answers. `folder` is below the set's own."""

    units: Iterable[dict[str, Any]]
    unit_schema: pa.Schema
    schema: pa.Schema
    key: tuple[str, ...]
    program: Program
    folder: str = ""


@dataclass(frozen=True)
class Answers:
    """What a judge said of each row, in its protocol's own form, and why some rows could not be judged: by id."""

    of: Mapping[str, Any]
    lost: Mapping[str, str]


class JudgingProtocol(ABC):
    """One way of judging rows with gold labels."""

    judges_pairs: ClassVar[bool] = True  # response_a against response_b, so that two judges can be compared by row

    @abstractmethod
    def questions(self, judge: Judge, benchmark: Benchmark, voting: Voting, name: str) -> list[Questions]:
        """What is asked about a benchmark's rows; `name` is that of the set, in every unit's key."""

    @abstractmethod
    def read(self, directory: str, benchmark: Benchmark, voting: Voting) -> Answers:
        """The answers in a set's folder. Votes are read here once, for all that is made of them."""

    @abstractmethod
    def records(self, benchmark: Benchmark, answers: Answers, voting: Voting) -> Iterator[dict[str, Any]]:
        """The lines of a verdict file: every id of the benchmark, in its order, quarantined ones with their reason."""

    @abstractmethod
    def summary(
        self, benchmark: Benchmark, answers: Answers, voting: Voting, outcomes: Sequence[Outcome] | None = None
    ) -> dict[str, Any]:
        """Every figure of the set (`metrics.summarise`). `outcomes`: what the method of that name gives, where it was
        asked before.
        """

    @abstractmethod
    def headline(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """The figures that the run's table shows: {metric: {"value", "n", "low", "high"}}."""

    def outcomes(self, benchmark: Benchmark, answers: Answers, voting: Voting) -> list[Outcome] | None:
        """One outcome a row; None where the rows are no pairs."""
        return None

    def prompts_covered(self, judge: Judge) -> dict[str, str]:
        """{name: hash} of the prompts that it shows besides the judge's own."""
        return {}


class PairProtocol(JudgingProtocol):
    """A protocol that judges pairs of the loop too: by rejection sampling, from which the next judge is trained."""

    prompt_setting: ClassVar[str]  # of `prompts.…`
    verdicts: ClassVar[tuple[str, ...]]  # what a judgment ends in, between double brackets
    ends_in: ClassVar[str]  # the same in words, in the cards
    parser: ClassVar[str]  # in words, in judge.json
    units_per_pair: ClassVar[int]
    pair_schema: ClassVar[pa.Schema]
    pair_key: ClassVar[tuple[str, ...]]
    verdict_column: ClassVar[str]  # of both tables; null is unparsed
    part: ClassVar[str]  # the column that tells a pair's judgments apart: order, or side
    shows_both: ClassVar[bool]  # both responses in one prompt, so that their order is a choice
    fingerprinted: ClassVar[Mapping[str, str]]  # what fingerprints of evaluations say of it
    has_preferences: ClassVar[bool]  # whether a judgment is right or wrong, as DPO needs it

    @abstractmethod
    def pair_units(self, pair: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What is asked about one pair of the run."""

    @abstractmethod
    def sampling_program(
        self, judge: Judge, settings: JudgingSettings, seed: int, iteration: int, stage: str = JUDGMENTS_STAGE
    ) -> Program:
        """The program of rejection sampling; `stage` is part of every seed."""

    def voted(self, judge: Judge, voting: Voting, prompt: Prompt, verdicts: Iterable[str]) -> dict[str, Any]:
        """What the voting programs have in common."""
        return {
            "prompt": prompt,
            "sampling": sampling_from(voting.generation, judge.stop_after_verdict, verdicts),
            "samples": voting.votes,
            "judge": judge.named,
            "run_seed": voting.seed,
            "iteration": voting.iteration or 0,
            "stage": STAGE,
        }

    def drawn(self, judge: Judge, settings: JudgingSettings, seed: int, iteration: int, stage: str) -> dict[str, Any]:
        """What the programs of rejection sampling have in common."""
        return {
            "prompt": judge.prompt,
            "sampling": sampling_from(settings.generation, judge.stop_after_verdict, self.verdicts),
            "mode": settings.sampling,
            "samples": settings.samples,
            "judge": judge.named,
            "run_seed": seed,
            "iteration": iteration,
            "stage": stage,
            "key": self.pair_key,
        }

    @abstractmethod
    def choice(self, files: Sequence[str], rule: Rule) -> Choice:
        """Which judgments are trained on."""

    @abstractmethod
    def pair_prompts(self, pair: Mapping[str, Any], prompt: Prompt) -> Iterator[tuple[tuple[str, str], list[Message]]]:
        """((pair_id, order or side), the messages the judge saw) of everything asked about a pair."""

    @abstractmethod
    def voting_program(self, judge: Judge, voting: Voting) -> Program:
        """The program that votes on one row."""

    @abstractmethod
    def row_units(self, name: str, row: PairwiseRow) -> list[dict[str, Any]]:
        """What is asked about one row, for whoever asks about rows one by one (`--serve`)."""

    @abstractmethod
    def record_of(
        self, identity: str, rows: Sequence[Mapping[str, Any]], votes: int, reason: str | None
    ) -> dict[str, Any]:
        """The line of a verdict file that the drawn rows of one pair make."""

    def answered(
        self,
        identity: str,
        units: Sequence[UnitResult],
        votes: int,
        fault: str | None = None,
        explanations: bool = False,
    ) -> dict[str, Any]:
        """The same, of a pair that was asked about by itself: `units` are what the engines made of its `row_units`."""
        rows = sorted((row for unit in units for row in unit.rows), key=lambda row: (row[self.part], row["sample"]))
        reason = fault or next((entry["reason"] for unit in units for entry in unit.quarantine), None)
        record = self.record_of(identity, rows, votes, reason)
        if explanations:
            parts = dict.fromkeys(row[self.part] for row in rows)
            record["explanations"] = {part: [row["text"] for row in rows if row[self.part] == part] for part in parts}
        return record

    @abstractmethod
    def points(self, record: Mapping[str, Any]) -> tuple[float | None, float | None]:
        """What such a line is worth to response_a and to response_b, for a ranking; None where it says nothing."""
