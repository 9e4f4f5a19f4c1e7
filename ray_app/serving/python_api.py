"""A judge in Python: `from ray_app import Judge`.

    with Judge.load("runs/NAME/iter_02/checkpoint") as judge:
        verdicts = judge.judge([{"instruction": "…", "response_a": "…", "response_b": "…"}], votes=8)
        best = judge.rank("…", ["first", "second", "third"]).best

Engines start with the first question, in the Ray that this process is connected to, else in a local one of their own,
and end with the block. What is asked is what the command `judge` asks: same prompts, seeds, stops and parser. For files
of many pairs take the command: its votes are durable and it continues where it was stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import ray
from pydantic import ValidationError

from ray_app.base.schema import PairwiseRow, content_id
from ray_app.base.settings_parts import SamplingSettings, voted_sampling
from ray_app.benchmarks import Faulty
from ray_app.benchmarks.base import pairwise_item
from ray_app.benchmarks.files import clean_row
from ray_app.benchmarks.responses import candidates, pairs_of
from ray_app.engine.asking import Asker
from ray_app.engine.base import UnitResult, Work, alone
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.engine.settings import EndpointSettings, EngineSettings
from ray_app.engine.supervisor import Lanes, Limits
from ray_app.errors import InputError
from ray_app.judging import judge as judges
from ray_app.judging.protocol import Voting
from ray_app.judging.ranking import Ranking, couples, ranking
from ray_app.judging.registry import protocol_of
from ray_app.judging.settings import Mode
from ray_app.system.cluster import connected
from ray_app.system.cluster_settings import RaySettings

if TYPE_CHECKING:
    import pandas

NAME = "judge"
LOCAL = RaySettings(dashboard=False)
COLUMNS = ("instruction", "response_a", "response_b")


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one pair. `winner` is None where it cannot be told: the orders disagree, no answer ends in a
    verdict, or the pair could not be judged (`quarantined` says why).

    `record` is the line of a verdict file (docs/evaluation.md): votes of each order, or scores of each response.
    """

    id: str
    winner: str | None
    inconsistent: bool
    quarantined: str | None
    record: Mapping[str, Any]

    @property
    def explanations(self) -> Mapping[str, Sequence[str]]:
        """The judge's texts by order (pointwise: by response); empty unless they were asked for."""
        found: Mapping[str, Sequence[str]] = self.record.get("explanations", {})
        return found


class Verdicts(list[Verdict]):
    """Verdicts in the order of the pairs."""

    def to_pandas(self) -> pandas.DataFrame:
        """One row a pair: id, winner, inconsistent, quarantined; votes or scores as `orders.ab.votes.A`, `scores.a`."""
        import pandas

        rows = [{key: value for key, value in one.record.items() if key != "explanations"} for one in self]
        return pandas.json_normalize(rows).rename(columns={"verdict": "winner"})


@dataclass
class Judge:
    """A judge that is ready to be asked. Made by `Judge.load`; not for several threads at once."""

    asked: judges.Judge
    ray_settings: RaySettings = LOCAL
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _pool: EnginePool | None = None

    @classmethod
    def load(
        cls,
        model: str,
        *,
        endpoint: str | None = None,
        prompt: str | None = None,
        mode: Mode | None = None,
        stop_after_verdict: bool | None = None,
        engine: Mapping[str, Any] | None = None,
        ray: Mapping[str, Any] | None = None,
    ) -> Judge:
        """A checkpoint of this project (which brings its own prompt), a model folder, a hub id, or with `endpoint` the
        name that an OpenAI-compatible service gives its model. `prompt` is a file or the name of a shipped one,
        `engine` and `ray` are settings as in YAML (docs/settings.md).

        Raises InputError naming what is missing or wrong. No engine is started yet.
        """
        given: dict[str, Any] = {"model": model, **(engine or {})}
        if endpoint is not None:
            given |= {"kind": "openai", "endpoint": EndpointSettings(base_url=endpoint)}
        try:
            settings = EngineSettings.model_validate(given)
            ray_settings = RaySettings.model_validate({**LOCAL.model_dump(), **(ray or {})})
        except ValidationError as fault:
            raise InputError(_first_of(fault)) from fault
        return cls(judges.judge_of(settings, prompt, stop_after_verdict, mode), ray_settings)

    def judge(
        self,
        pairs: Iterable[Mapping[str, Any]],
        *,
        votes: int = 1,
        generation: Mapping[str, Any] | None = None,
        seed: int = 0,
        early_stop: bool = True,
        explanations: bool = False,
    ) -> Verdicts:
        """Judge pairs, each a mapping with `instruction`, `response_a`, `response_b` and perhaps `id`, in both orders.

        `votes` samples an order (pointwise: a response), whose majority counts; 1 is greedy. `generation` sets
        sampling (temperature, top_p, max_tokens). A pandas DataFrame comes as `frame.to_dict("records")`.
        Raises InputError for a pair without these fields or an id that occurs twice, RunError where engines do not
        start, or die. A pair that cannot be judged is quarantined, the others go on.
        """
        items = [_item(pair, index) for index, pair in enumerate(pairs)]
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise InputError(f"id {item.id[:80]!r} occurs twice")
            seen.add(item.id)
        voting = Voting(voted_sampling(_sampling(generation), votes), votes, seed, early_stop)
        records = self._records(items, voting, explanations)
        return Verdicts(_verdict(record) for record in records)

    def rank(
        self,
        instruction: Any,
        responses: Sequence[Any],
        *,
        votes: int = 1,
        generation: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Ranking:
        """The order of the responses to one prompt, best first. A pairwise judge compares every two of them (n·(n-1)/2
        pairs in both orders), a pointwise one scores each.
        """
        protocol = protocol_of(self.asked.mode)
        row = candidates("ranking", instruction, list(responses))
        if row.fault is not None:
            raise InputError(f"these responses cannot be ranked: {row.fault}")
        asked = couples(len(row.responses), protocol)
        voting = Voting(voted_sampling(_sampling(generation), votes), votes, seed)
        records = self._records(list(pairs_of(row, asked)), voting, False)
        return ranking(row.id, len(row.responses), dict(zip(asked, records, strict=True)), protocol)

    def close(self) -> None:
        """End the engines, and the Ray that was started for them."""
        self._pool = None
        self._open.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _records(
        self, items: Sequence[PairwiseRow | Faulty], voting: Voting, explanations: bool
    ) -> list[dict[str, Any]]:
        protocol, pool = protocol_of(self.asked.mode), self._started()
        work = Work(protocol.voting_program(self.asked, voting), NAME, None, pool.model)
        rows = [item for item in items if isinstance(item, PairwiseRow)]
        units = answers_of(pool, work, [protocol.row_units(NAME, row) for row in rows])
        answers = dict(zip((row.id for row in rows), units, strict=True))
        return [
            protocol.answered(item.id, answers.get(item.id, []), voting.votes, _fault(item), explanations)
            for item in items
        ]

    def _started(self) -> EnginePool:
        if self._pool is None:
            if not ray.is_initialized():
                self._open.enter_context(connected(self.ray_settings))
            pools = PoolManager(run_id=NAME, may_grow=self.ray_settings.may_grow)
            self._open.callback(pools.close)
            self._pool = pools.get(NAME, self.asked.engine).pool
        return self._pool


def answers_of(pool: EnginePool, work: Work, tasks: Sequence[list[dict[str, Any]]]) -> list[list[UnitResult]]:
    """What the engines answer to each task's units, in the order of the tasks. An engine that dies is built anew, and
    its rows are asked again (`engine/asking.py`). Raises RunError where none answers any more.
    """

    async def answers() -> list[list[UnitResult]]:
        asker, lanes = Asker(pool.actors, pool.model, Limits.of(pool.settings)), Lanes((work,), (work,))
        slots = asyncio.Semaphore(len(pool.actors) * pool.settings.in_flight)

        async def answer(units: list[dict[str, Any]]) -> list[UnitResult]:
            async with slots:
                return await asker.ask(lanes, alone(units))

        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(answer(units)) for units in tasks]
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None
        finally:
            asker.close()
        return [task.result() for task in asked]

    # In a thread of its own: where this is called, in a notebook, an event loop may be running already.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, answers()).result()


def _item(pair: Mapping[str, Any], index: int) -> PairwiseRow | Faulty:
    missing = [name for name in COLUMNS if name not in pair]
    if missing:
        raise InputError(f"pair {index} has no {missing[0]}; it has {', '.join(map(str, pair))}")
    row = clean_row(dict(pair))
    texts = [row[name] for name in COLUMNS]
    identity = f"{index}-{content_id(texts)}" if row.get("id") is None else str(row["id"])
    return pairwise_item(identity, "", texts[0], (texts[1], texts[2]), None, labelled=False)


def _fault(item: PairwiseRow | Faulty) -> str | None:
    return item.reason if isinstance(item, Faulty) else None


def _verdict(record: dict[str, Any]) -> Verdict:
    return Verdict(record["id"], record["verdict"], record["inconsistent"], record.get("quarantined"), record)


def _sampling(given: Mapping[str, Any] | None) -> SamplingSettings | None:
    try:
        return None if given is None else SamplingSettings.model_validate(dict(given))
    except ValidationError as fault:
        raise InputError(_first_of(fault)) from fault


def _first_of(fault: ValidationError) -> str:
    error = fault.errors()[0]
    return f"{fault.title}.{'.'.join(map(str, error['loc']))}: {error['msg']} (got {error.get('input')!r:.80})"
