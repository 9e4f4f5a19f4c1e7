"""An engine that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ray_app.base.schema import Message
from ray_app.engine.base import Completion, Prepared, PromptTooLong, Sampling, UnitResult


@dataclass(frozen=True)
class Call:
    """One request."""

    messages: list[Message]
    sampling: Sampling
    seed: int | None

    @property
    def prompt(self) -> str:
        return self.messages[-1]["content"]


Answer = Callable[[Call], str | Completion | Exception]


class Replay:
    """Answers by `answer`; a text alone counts one token a word. `turns` says how late a request comes back."""

    control: frozenset[str] = frozenset()

    def __init__(self, answer: Answer, turns: Callable[[Call], int] = lambda _: 1, limit: int = 10**9) -> None:
        self.answer, self.turns, self.limit = answer, turns, limit
        self.calls: list[Call] = []
        self.prepared = self.running = self.most_running = 0

    def prepare(self, messages: list[Message]) -> Prepared:
        self.prepared += 1
        size = sum(len(m["content"]) for m in messages)
        if size > self.limit:
            raise PromptTooLong(size, self.limit)
        return Prepared(messages)

    async def generate(self, prepared: Prepared, sampling: Sampling, seed: int | None) -> Completion:
        call = Call(prepared.messages, sampling, seed)
        self.calls.append(call)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        for _ in range(self.turns(call)):
            await asyncio.sleep(0)
        self.running -= 1
        answer = self.answer(call)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            return Completion(answer, "stop", 10, len(answer.split()))
        return answer

    async def reload(self, model: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        return None


def run(program: Any, engine: Any, *rows: dict[str, Any]) -> list[UnitResult]:
    """Results of `rows`, one after the other."""

    async def main() -> list[UnitResult]:
        return [await program(engine, row) for row in rows]

    return asyncio.run(main())


def in_turn(answers: Iterable[str | Completion | Exception]) -> Answer:
    """The answers in the order in which they are asked for."""
    left = iter(list(answers))
    return lambda _: next(left)


LETTERS = {"A": "Better. [[A]]", "B": "Worse. [[B]]", "-": "No idea."}


def judgments(letters: str) -> list[str | Completion | Exception]:
    """Judgments by letter, `-` for one without a verdict."""
    return [LETTERS[letter] for letter in letters]
