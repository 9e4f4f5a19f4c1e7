"""Side (a): bare vLLM. `LLM.generate` on token ids, all requests at once, one process a replica.

Rendering and tokenising are done before the clock starts, which favours this side.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import Any

from judge_bench.work import Spec, make_pairs
from ray_app.base.schema import derive_seed
from ray_app.engine.settings import EngineSettings
from ray_app.engine.vllm_engine import complete_arguments, environment
from ray_app.generation.programs.rows import judge_messages, pair_units

WARM_UP = 8  # requests


def run(spec: Spec) -> list[dict[str, Any]]:
    """One record a repeat: seconds, tokens, requests."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(spec.replicas), context.Queue()
    workers = [context.Process(target=_replica, args=(spec, i, barrier, results)) for i in range(spec.replicas)]
    for worker in workers:
        worker.start()
    found = []
    try:
        while len(found) < spec.replicas:
            try:
                found.append(results.get(timeout=1))
            except Exception:
                if any(worker.exitcode not in (None, 0) for worker in workers):
                    raise RuntimeError("a bare replica died") from None
    finally:
        for worker in workers:
            if len(found) < spec.replicas:
                worker.terminate()
            worker.join()
    return [_joined([replica[repeat] for replica in found]) for repeat in range(spec.repeats)]


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = max(p["end"] for p in parts) - min(p["start"] for p in parts)
    sums = {name: sum(p[name] for p in parts) for name in ("requests", "prompt_tokens", "completion_tokens")}
    return {"seconds": seconds, **sums}


def _replica(spec: Spec, index: int, barrier: Any, results: Any) -> None:
    settings: EngineSettings = spec.engine().resolved(1 if spec.device == "cuda" else 0)
    os.environ.update(environment(settings))
    from vllm import LLM

    started = time.monotonic()
    if index and spec.replicas_per_gpu > 1:
        barrier.wait()  # as in ray_app: the first compiles alone
    llm = LLM(**complete_arguments(settings))
    if index == 0 and spec.replicas_per_gpu > 1:
        barrier.wait()
    print(f"bare {index}: engine after {time.monotonic() - started:.0f} s", flush=True)
    _generate(llm, *_requests(spec, llm, index, -1, WARM_UP))
    records = []
    for repeat in range(spec.repeats):
        prompts, parameters = _requests(spec, llm, index, repeat, None)
        barrier.wait()
        records.append(_generate(llm, prompts, parameters))
    results.put(records)
    llm.llm_engine.engine_core.shutdown()  # engines over several workers are joined at exit, and would not end alone


def _requests(spec: Spec, llm: Any, index: int, repeat: int, limit: int | None) -> tuple[list[Any], list[Any]]:
    """This replica's share of the requests of one repeat."""
    from vllm import SamplingParams

    tokenizer, sampling, program = llm.get_tokenizer(), spec.sampling(), spec.program()
    prompts, parameters = [], []
    for number, pair in enumerate(make_pairs(spec, repeat)):
        if number % spec.replicas != index or (limit is not None and len(prompts) >= limit):
            continue
        for unit in pair_units(pair):
            messages = judge_messages(program.prompt, unit)
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            for sample in range(spec.samples):
                seed = derive_seed(repeat, 1, "judgments", unit["id"], unit["order"], sample) if spec.seeded else None
                prompts.append({"prompt_token_ids": list(ids)})
                parameters.append(
                    SamplingParams(
                        temperature=sampling.temperature,
                        top_p=sampling.top_p,
                        max_tokens=sampling.max_tokens,
                        stop=list(sampling.stop) or None,
                        include_stop_str_in_output=sampling.include_stop,
                        seed=seed,
                    )
                )
    return prompts, parameters


def _generate(llm: Any, prompts: list[Any], parameters: list[Any]) -> dict[str, Any]:
    start = time.time()
    outputs = llm.generate(prompts, parameters, use_tqdm=False)
    return {
        "start": start,
        "end": time.time(),
        "requests": len(outputs),
        "prompt_tokens": sum(len(o.prompt_token_ids) for o in outputs),
        "completion_tokens": sum(len(o.outputs[0].token_ids) for o in outputs),
    }
