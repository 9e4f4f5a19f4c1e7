"""vLLM as an engine. Imported only inside engine actors; keeps to the API of vLLM 0.26 to 0.32."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from ray_app.base.local_copy import local_model
from ray_app.base.reasoning import declared, opened_by
from ray_app.base.schema import Message
from ray_app.base.tokens import Marks, control_tokens, decode, drawn_text, marks_of
from ray_app.engine.base import (
    USUAL,
    Completion,
    EngineError,
    Prepared,
    RequestRefused,
    Sampling,
    Start,
    room_for,
)
from ray_app.engine.settings import EngineSettings
from ray_app.engine.vllm_core import AsyncCore, ThreadCore

# How often libgomp looks before a thread that waits for the others sleeps. Its default spins for milliseconds: alone
# that saves wake-ups (a sixth of the tokens/s), but beside one busy process an engine then had 0.4 of its fair share of
# two cores, for its threads burn the time that the thread they wait for would need (benchmarks/README.md).
SPIN_COUNT = 1000
KV_PART = 0.6  # of what the weights leave of a share of a GPU
MOST_CAPTURED = 512  # vLLM's own limit of the batches that it captures graphs for
SLEEP_LEVEL = 2  # weights are given up too: on waking they are read again, as they are for a new checkpoint


def environment(settings: EngineSettings) -> dict[str, str]:
    """Environment of the actor process; it must be there before vLLM is imported."""
    values = {
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
    }
    for name in ("HF_HUB_OFFLINE", "HF_HOME", "VLLM_USE_FLASHINFER_SAMPLER"):
        if name in os.environ:
            values[name] = os.environ[name]
    if settings.device == "cpu":
        values |= {
            "VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(settings.cpu_threads),
            "GOMP_SPINCOUNT": str(SPIN_COUNT),
        }
        if in_this_process(settings):
            values["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return values | settings.env


def in_this_process(settings: EngineSettings) -> bool:
    """Whether the engine is a thread of its actor (`vllm_core`)."""
    return settings.device == "cpu" and settings.tensor_parallel == 1


def engine_arguments(settings: EngineSettings, start: Start = USUAL) -> dict[str, Any]:
    """Arguments of AsyncEngineArgs. Pure; `settings.vllm` has the last word."""
    arguments: dict[str, Any] = {
        "model": settings.model,
        "load_format": "dummy" if start.without_weights else None,
        "revision": settings.revision,
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel,
        "distributed_executor_backend": settings.executor if settings.tensor_parallel > 1 else None,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
    }
    if settings.device == "cpu":
        # vLLM's CPU sampler cannot seed a request whose prefill is split ("CPU Generator does not use offset").
        length = settings.max_model_len or 8192
        arguments |= {"enforce_eager": True, "enable_chunked_prefill": False}
        arguments["max_num_batched_tokens"] = max(4096, length)
        arguments["worker_extension_cls"] = "ray_app.engine.vllm_worker.TiedHead"
        arguments["worker_cls"] = "ray_app.engine.vllm_cpu_worker.TimedWorker"
    else:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization / settings.replicas_per_gpu
        arguments["worker_cls"] = "ray_app.engine.vllm_gpu_worker.TimedWorker"
        if not {"cudagraph_capture_sizes", "compilation_config"} & settings.vllm.keys():
            # vLLM captures graphs for batches of up to twice as many sequences, which no decoding step has.
            arguments["max_cudagraph_capture_size"] = captured(settings.max_num_seqs)
        if start.sleeps:
            arguments["enable_sleep_mode"] = True
    return {k: v for k, v in arguments.items() if v is not None} | settings.vllm


def captured(sequences: int) -> int:
    """The largest batch to capture a CUDA graph for: the next that vLLM captures (steps of 8, of 16 from 256 on), up to
    its own limit. Pure.
    """
    step = 8 if sequences <= 256 else 16
    return min(-(-sequences // step) * step, MOST_CAPTURED)


def memory_of_share(settings: EngineSettings, gpu_bytes: int, weight_bytes: int) -> dict[str, Any]:
    """The KV cache of an engine that shares a GPU, in bytes. Pure. Raises ValueError where the weights do not fit.

    vLLM would measure what is free, and so what its neighbours take meanwhile. Of what the weights leave of a share,
    a part stays for activations, logits, CUDA graphs and the process's own context.
    """
    if settings.replicas_per_gpu == 1 or settings.device == "cpu" or "kv_cache_memory_bytes" in settings.vllm:
        return {}
    share = gpu_bytes * settings.gpu_memory_utilization / settings.replicas_per_gpu
    if weight_bytes >= share * KV_PART:
        gib = 2**30
        raise ValueError(
            f"replicas_per_gpu {settings.replicas_per_gpu} is too many: weights of {weight_bytes / gib:.1f} GiB leave "
            f"too little of a share of {share / gib:.1f} GiB"
        )
    return {"kv_cache_memory_bytes": int((share - weight_bytes) * KV_PART)}


def _measured_share(settings: EngineSettings) -> dict[str, Any]:
    if settings.replicas_per_gpu == 1 or settings.device == "cpu":
        return {}
    from vllm.platforms import current_platform

    files = Path(settings.model).glob("*.safetensors")  # of a hub id nothing is known yet: then 0
    return memory_of_share(settings, current_platform.get_device_total_memory(), sum(f.stat().st_size for f in files))


def complete_arguments(settings: EngineSettings, start: Start = USUAL) -> dict[str, Any]:
    """`engine_arguments`, and what depends on the GPU of this process."""
    return _measured_share(settings) | engine_arguments(settings, start)


def reasoning_of(settings: EngineSettings, tokenizer: Any) -> Marks | None:
    """The marks of reasoning that text does not show: those of the parser that `vllm.reasoning_parser` names, else the
    tokenizer's own. Only the marks are asked of a parser: what else it does differs from one to the next.
    """
    name = settings.vllm.get("reasoning_parser")
    if not name or declared(settings.chat_template_kwargs) is False:
        return marks_of(tokenizer)
    from vllm.reasoning import ReasoningParserManager

    options = {"chat_template_kwargs": settings.chat_template_kwargs}
    parser = ReasoningParserManager.get_reasoning_parser(name)(tokenizer, **options)
    for names in (("start_token", "end_token"), ("reasoning_start_str", "reasoning_end_str")):
        opens, closes = (getattr(parser, attribute, None) for attribute in names)
        if isinstance(opens, str) and isinstance(closes, str):
            return marks_of(tokenizer, (opens, closes))
    return marks_of(tokenizer)


class VllmEngine:
    """One vLLM engine: token ids in, final text out, one sample a request."""

    def __init__(self, settings: EngineSettings, start: Start = USUAL) -> None:
        began = time.monotonic()
        settings = settings.model_copy(update={"model": local_model(settings.model)})
        self.settings = settings
        self.without_weights = start.without_weights
        core = ThreadCore if in_this_process(settings) else AsyncCore
        self.core: AsyncCore | ThreadCore = core(complete_arguments(settings, start))
        self.seconds = time.monotonic() - began
        self.tokenizer, self.limit = self.core.tokenizer, self.core.limit
        self.reasoning = reasoning_of(settings, self.tokenizer)
        self.control = control_tokens(self.tokenizer)
        self.opened: str | None = None  # what the template writes of every answer
        self.finished = 0  # tokens of finished requests

    def prepare(self, messages: list[Message]) -> Prepared:
        # Token ids, not templated text: a templated string would get a second beginning-of-sequence token.
        ids = self.tokenizer.apply_chat_template(
            messages,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
            **self.settings.chat_template_kwargs,
        )
        room_for(len(ids), self.limit, 1)
        if self.opened is None:
            self.opened = opened_by(self.tokenizer.decode(list(ids)))
        return Prepared(messages, list(ids))

    async def generate(self, prepared: Prepared, sampling: Sampling, seed: int | None) -> Completion:
        ids = prepared.token_ids or []
        parameters = self._parameters(sampling, room_for(len(ids), self.limit, sampling.max_tokens), seed)
        try:
            final = await self.core.generate(ids, parameters)
        except ValueError as fault:  # vLLM's validation errors are ValueErrors
            raise RequestRefused(str(fault)) from None
        if final is None or not final.outputs:
            raise EngineError("vLLM returned nothing")
        answer = final.outputs[0]
        self.finished += len(answer.token_ids)
        drawn = tuple(answer.token_ids)
        text = answer.text if parameters.detokenize else decode(self.tokenizer, drawn)
        said = drawn_text(text, self.tokenizer, drawn, self.reasoning, self.opened or "")
        return Completion(said, str(answer.finish_reason), len(ids), len(drawn), drawn)

    def _parameters(self, sampling: Sampling, max_tokens: int, seed: int | None) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=max_tokens,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=sampling.include_stop,
            seed=seed if self.settings.seeded else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
            # Text is needed token by token only to find a stop string; else it is decoded once, at the end.
            detokenize=bool(sampling.stop),
        )

    def generated(self) -> int:
        return self.finished + self.core.unfinished()

    async def reload(self, model: str) -> None:
        if self.without_weights:
            await self.core.on_workers("expect_files")
            self.without_weights = False
        folder = await asyncio.to_thread(local_model, model)  # it may have to come from a store
        await self.core.on_workers("reload_weights", weights_path=folder)
        if self.settings.device == "cpu":
            await self.core.on_workers("repack_tied_head")
        await self.core.forget_prefixes()
        self.settings = self.settings.model_copy(update={"model": model})

    async def start_parts(self) -> dict[str, float]:
        try:
            parts = await self.core.start_parts()
        except Exception:  # a worker of the user's own (`vllm.worker_cls`) tells nothing
            return {}
        return parts | {"rest": max(0.0, self.seconds - sum(parts.values()))}

    async def sleep(self) -> None:
        await self.core.sleep(SLEEP_LEVEL)

    async def wake(self, model: str) -> None:
        # The caches come last: while weights are read, a large model needs the room.
        await self.core.wake("weights")
        await self.reload(model)
        await self.core.wake("kv_cache")

    async def close(self) -> None:
        self.core.close()
