"""The engine interface: one prompt, one sample a request. Programs are written against it; nothing else generates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray_app.base.schema import Message
from ray_app.base.settings_parts import SamplingSettings


class PromptTooLong(Exception):
    """The prompt leaves no room for a single token. A fault of the row: it is quarantined."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f"the prompt has {tokens} tokens; the model takes {limit} with its answer")


class RequestRefused(Exception):
    """The engine answers, but not this request. A fault of the row: it is quarantined; the message names the cause."""


class EngineError(Exception):
    """A request failed for good, whatever it asked. The row is quarantined; many in a row stop the run."""


class EngineDied(Exception):
    """The engine behind its actor is gone. The actor ends itself: Ray starts it again, its rows are asked again."""


@dataclass(frozen=True)
class Sampling:
    """Sampling of one request. With `include_stop` the stop string stays in the text."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 4096
    stop: tuple[str, ...] = ()
    include_stop: bool = False


def sampling_from(
    settings: SamplingSettings, stop_after_verdict: bool = False, verdicts: Iterable[str] = "AB"
) -> Sampling:
    """Engine sampling from `SamplingSettings`. Stopping at a verdict keeps it in the text."""
    stop = tuple(f"[[{verdict}]]" for verdict in verdicts) if stop_after_verdict else ()
    return Sampling(settings.temperature, settings.top_p, settings.max_tokens, stop, bool(stop))


@dataclass(frozen=True)
class Start:
    """How an engine is started, besides its settings: nothing of it changes an answer."""

    sleeps: bool = False  # it can give up weights and caches, and take them again
    without_weights: bool = False  # its weights are loaded before it is first asked
    run: str = ""  # whose engine it is, in metrics
    gpus: tuple[str, ...] | None = None  # its GPUs by CUDA's ids; None: those that Ray gives to its actor


USUAL = Start()


@dataclass(frozen=True)
class Prepared:
    """A prompt, templated and tokenised once for all samples of a unit. Endpoints take messages, not token ids."""

    messages: list[Message]
    token_ids: list[int] | None = None


@dataclass(frozen=True)
class Completion:
    """One sample."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    token_ids: tuple[int, ...] | None = None  # as drawn, the end of turn too; None from endpoints


@dataclass
class UnitResult:
    """What a program returns for one row. All `rows` of a unit land in one shard."""

    unit: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, str]] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)


class Sampler(Protocol):
    """Draws samples: what a program is given of an engine."""

    control: frozenset[str]  # control tokens of its model; empty where messages, not tokens, are sent

    def prepare(self, messages: list[Message]) -> Prepared:
        """Template and tokenise. Raises PromptTooLong."""
        ...

    async def generate(self, prepared: Prepared, sampling: Sampling, seed: int | None) -> Completion:
        """One sample. Raises RequestRefused, EngineError or EngineDied."""
        ...


class Engine(Sampler, Protocol):
    """vLLM, an OpenAI-compatible endpoint, or the scripted engine of the tests."""

    def generated(self) -> int:
        """Tokens made so far, those of requests that are not finished included."""
        ...

    async def reload(self, model: str) -> None:
        """Serve the weights of another folder of the same shape."""
        ...

    async def start_parts(self) -> dict[str, float]:
        """Seconds of its start by what it did; empty where nothing is known."""
        ...

    async def sleep(self) -> None:
        """Give up weights and caches; nothing is asked until `wake`."""
        ...

    async def wake(self, model: str) -> None:
        """Take the weights of another folder of the same shape, or of the same one, and answer again."""
        ...

    async def close(self) -> None:
        """Give back what the engine holds."""
        ...


class Program(Protocol):
    """What is asked of an engine for one row; runs inside the engine actor. Picklable."""

    def unit_of(self, row: dict[str, Any]) -> str:
        """The unit's name: its resume key, and its id in the quarantine table."""
        ...

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult: ...


@dataclass(frozen=True)
class Work:
    """What the rows of one lane are asked, and of which weights: sent to the actors along with the rows."""

    program: Program
    stage: str
    iteration: int | None
    model: str


Asked = tuple[int, dict[str, Any]]  # a row, with the number of its lane


def alone(rows: Iterable[dict[str, Any]]) -> list[Asked]:
    """Rows that are asked in the one lane there is."""
    return [(0, row) for row in rows]


def room_for(tokens: int, limit: int, wanted: int) -> int:
    """How many tokens a request may generate. Raises PromptTooLong when none is left."""
    room = limit - tokens
    if room < 1:
        raise PromptTooLong(tokens, limit)
    return min(wanted, room)
