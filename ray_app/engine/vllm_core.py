"""vLLM's engine behind coroutines, in one of two forms with the same few methods. Imported only inside engine actors.

AsyncCore    AsyncLLM: the engine has a process of its own. On GPUs, and wherever a replica has several workers.
ThreadCore   LLMEngine: the engine is a thread of this process. On CPU, where a second process would import vLLM
             once more at every start, and where its messages would take turns with the engine's own threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from ray_app.engine.base import EngineDied


class AsyncCore:
    """vLLM's AsyncLLM."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self.tokenizer: Any = self.llm.get_tokenizer()
        self.limit = int(self.llm.model_config.max_model_len)

    async def start_parts(self) -> dict[str, float]:
        """How long the parts of the start took, by the worker that took longest."""
        return slowest(await self.llm.collective_rpc("start_parts"))

    async def sleep(self, level: int) -> None:
        """Give up the memory of weights and caches."""
        await self.llm.sleep(level)

    async def wake(self, tag: str) -> None:
        """Take the memory of `weights` or `kv_cache` again."""
        await self.llm.wake_up([tag])

    async def generate(self, token_ids: list[int], parameters: Any) -> Any:
        """The finished RequestOutput. Raises EngineDied, and ValueError for a request that vLLM refuses."""
        from vllm.v1.engine.exceptions import EngineDeadError

        final: Any = None
        try:
            async for output in self.llm.generate({"prompt_token_ids": token_ids}, parameters, uuid.uuid4().hex):
                final = output
        except EngineDeadError as fault:
            raise EngineDied(str(fault)) from None
        return final

    async def on_workers(self, method: str, **arguments: Any) -> None:
        """Call a method of vLLM's workers."""
        await self.llm.collective_rpc(method, kwargs=arguments)

    async def forget_prefixes(self) -> None:
        await self.llm.reset_prefix_cache()

    def unfinished(self) -> int:
        """Tokens made so far of requests that are not finished."""
        return tokens_in(self.llm.output_processor)

    def close(self) -> None:
        self.llm.shutdown()


class ThreadCore:
    """vLLM's LLMEngine, which one thread builds, feeds and steps: nothing of it is shared with other threads."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.waiting: dict[str, Future[Any]] = {}
        self.dead: str | None = None
        started: Future[None] = Future()
        self.thread = threading.Thread(target=self._live, args=(arguments, started), daemon=True, name="vllm")
        self.thread.start()
        started.result()

    async def generate(self, token_ids: list[int], parameters: Any) -> Any:
        """The finished RequestOutput. Raises EngineDied, and ValueError for a request that vLLM refuses."""
        name, done = uuid.uuid4().hex, Future[Any]()

        def add() -> None:
            self.engine.add_request(name, {"prompt_token_ids": token_ids}, parameters)
            self.waiting[name] = done

        self._ask(add, done)
        try:
            return await asyncio.wrap_future(done)
        except asyncio.CancelledError:
            self.jobs.put(lambda: self._abort(name))
            raise

    async def on_workers(self, method: str, **arguments: Any) -> None:
        """Call a method of vLLM's workers."""
        await self._call(lambda: self.engine.collective_rpc(method, kwargs=arguments))

    async def forget_prefixes(self) -> None:
        await self._call(lambda: self.engine.reset_prefix_cache())

    async def start_parts(self) -> dict[str, float]:
        """How long the parts of the start took."""
        return slowest(await self._call(lambda: self.engine.collective_rpc("start_parts")))

    async def sleep(self, level: int) -> None:
        raise NotImplementedError("an engine on processors holds nothing that others wait for: it does not sleep")

    async def wake(self, tag: str) -> None:
        raise NotImplementedError("an engine on processors does not sleep")

    def unfinished(self) -> int:
        """Tokens made so far of requests that are not finished."""
        return tokens_in(self.engine.output_processor)

    def close(self) -> None:
        self.jobs.put(None)
        self.thread.join()

    async def _call(self, what: Callable[[], Any]) -> Any:
        done = Future[Any]()
        self._ask(lambda: settle(done, what()), done)
        return await asyncio.wrap_future(done)

    def _ask(self, job: Callable[[], None], done: Future[Any]) -> None:
        """Let the thread do `job`; what it raises is `done`'s."""
        if self.dead:
            raise EngineDied(self.dead)

        def guarded() -> None:
            try:
                job()
            except Exception as fault:
                settle(done, fault=fault)

        self.jobs.put(guarded)

    def _abort(self, name: str) -> None:
        if self.waiting.pop(name, None) is not None:
            self.engine.abort_request([name])

    def _live(self, arguments: dict[str, Any], started: Future[None]) -> None:
        try:
            from vllm import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine

            self.engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
            self.tokenizer: Any = self.engine.get_tokenizer()
            self.limit = int(self.engine.model_config.max_model_len)
        except BaseException as fault:
            started.set_exception(fault)
            return
        started.set_result(None)
        try:
            while self._jobs_done():
                if self.engine.has_unfinished_requests():
                    self._step()
        except Exception as fault:
            self.dead = f"{type(fault).__name__}: {fault}"
            for future in self.waiting.values():
                settle(future, fault=EngineDied(self.dead))

    def _jobs_done(self) -> bool:
        """Do what was asked meanwhile; with nothing to generate, wait for it. False at the end."""
        while True:
            try:
                job = self.jobs.get(block=not self.engine.has_unfinished_requests())
            except queue.Empty:
                return True
            if job is None:
                return False
            job()

    def _step(self) -> None:
        for output in self.engine.step():
            future = self.waiting.pop(output.request_id, None) if output.finished else None
            if future is not None:
                settle(future, output)


def slowest(parts: list[dict[str, float]]) -> dict[str, float]:
    """The parts of the worker whose start took longest."""
    return max(parts, key=lambda one: sum(one.values()))


def tokens_in(processor: Any) -> int:
    """Tokens of the requests in vLLM's output processor. It holds them until they are finished: nothing is counted for
    this on the way, and asking costs no step.
    """
    states = list(processor.request_states.values())
    return sum(state.detokenizer.num_output_tokens() for state in states if state.detokenizer is not None)


def settle(future: Future[Any], value: Any = None, fault: Exception | None = None) -> None:
    """Set the outcome of a future, unless whoever waited for it has given up meanwhile."""
    with contextlib.suppress(InvalidStateError):
        if fault is None:
            future.set_result(value)
        else:
            future.set_exception(fault)
