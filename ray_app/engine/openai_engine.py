"""Any OpenAI-compatible server as an engine (a running `vllm serve`, a gateway); its client retries and backs off.

One deadline is over all tries of a sample. Of an endpoint that answers nothing at all it is the only limit: it is no
process of ours that could be ended because it stands still.
"""

from __future__ import annotations

import asyncio
import os
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import openai

from ray_app.base.schema import Message
from ray_app.engine.base import Completion, EngineError, Prepared, RequestRefused, Sampling
from ray_app.engine.sample_limit import SampleTimeout
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError, first_line

CONNECT_S = 30.0  # of one try: an endpoint that takes no connection is out, and no row has done it


@dataclass
class _Tries:
    """Of one sample: how its last try failed; nothing while it waits for its turn, or for the answer of a try."""

    failed: str = ""


_TRIES: ContextVar[_Tries] = ContextVar("tries of the sample that is asked in this task")


class _HttpClient(openai.DefaultAsyncHttpxClient):
    """Notes how each try went. The client above it makes the tries, and tells only how the last one of all went."""

    async def send(self, request: Any, **how: Any) -> Any:
        tries = _TRIES.get()
        tries.failed = ""
        try:
            response = await super().send(request, **how)
        except Exception as fault:
            tries.failed = f"{type(fault).__name__}: {first_line(fault)}"
            raise
        if response.is_error:
            tries.failed = f"{response.status_code} {response.reason_phrase}"
        return response


class OpenAIEngine:
    """Chat completions with at most `endpoint.concurrency` requests in flight."""

    control: frozenset[str] = frozenset()  # it is sent messages

    def __init__(self, settings: EngineSettings) -> None:
        self.settings, part = settings, settings.endpoint
        # Servers without authentication take any key; the client insists on one.
        key = os.environ.get(part.api_key_env) or "none"
        # The client's own limit would be one of each try, and a try that takes too long would be made again and again.
        self.client = openai.AsyncOpenAI(
            base_url=part.base_url,
            api_key=key,
            max_retries=part.max_retries,
            timeout=openai.Timeout(None, connect=CONNECT_S),
            http_client=_HttpClient(),
        )
        self.slots = asyncio.Semaphore(part.concurrency)
        self.made = 0

    def prepare(self, messages: list[Message]) -> Prepared:
        return Prepared(messages)

    async def generate(self, prepared: Prepared, sampling: Sampling, seed: int | None) -> Completion:
        """One sample. Raises SampleTimeout besides what an engine raises."""
        limit_s, tries = self.settings.request_timeout_s, _Tries()
        _TRIES.set(tries)
        try:
            async with asyncio.timeout(limit_s), self.slots:
                reply = await self.client.chat.completions.create(
                    model=self.settings.model,
                    messages=prepared.messages,  # type: ignore[arg-type]  # ours are plain dicts
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    **self._options(sampling, seed),
                )
        except openai.BadRequestError as fault:
            raise RequestRefused(f"the endpoint refused the request: {fault.message}") from fault
        except openai.OpenAIError as fault:
            raise EngineError(f"the endpoint failed: {type(fault).__name__}: {fault}") from fault
        except TimeoutError:
            # Between two tries the endpoint is what is at fault, and no row is to be blamed for that.
            if tries.failed:
                raise EngineError(f"the endpoint still failed after {limit_s:g} s: {tries.failed}") from None
            raise SampleTimeout(f"a sample was not finished after {limit_s:g} s") from None
        completion = _completion(reply, sampling)
        self.made += completion.completion_tokens
        return completion

    def _options(self, sampling: Sampling, seed: int | None) -> dict[str, Any]:
        """What is sent only where it is wanted: not every server knows it, or takes null."""
        options: dict[str, Any] = {self.settings.endpoint.max_tokens_field: sampling.max_tokens}
        extra: dict[str, Any] = dict(self.settings.endpoint.extra_body)
        if seed is not None and self.settings.seeded:
            options["seed"] = seed % 2**31  # some servers check for 32 bits
        if sampling.stop:
            options["stop"] = list(sampling.stop)
        if sampling.include_stop:
            extra["include_stop_str_in_output"] = True
        if self.settings.chat_template_kwargs:
            extra["chat_template_kwargs"] = self.settings.chat_template_kwargs
        return options | ({"extra_body": extra} if extra else {})

    def generated(self) -> int:
        return self.made

    async def reload(self, model: str) -> None:
        raise InputError("an endpoint cannot be given new weights: judge.kind openai trains nothing")

    async def start_parts(self) -> dict[str, float]:
        return {}

    async def sleep(self) -> None:
        raise InputError("an endpoint holds no GPU of ours: it does not sleep")

    async def wake(self, model: str) -> None:
        raise InputError("an endpoint does not sleep")

    async def close(self) -> None:
        await self.client.close()


def _completion(reply: Any, sampling: Sampling) -> Completion:
    choice, usage = reply.choices[0], reply.usage
    text = choice.message.content or ""
    if sampling.include_stop and choice.finish_reason == "stop":
        # A server that does not know the option leaves the stop string out, and with it the verdict.
        reason = getattr(choice, "stop_reason", None)
        if isinstance(reason, str) and not text.endswith(reason):
            text += reason
    return Completion(
        text,
        choice.finish_reason or "stop",
        usage.prompt_tokens if usage else 0,
        usage.completion_tokens if usage else 0,
    )
