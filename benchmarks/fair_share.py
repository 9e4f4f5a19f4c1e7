"""An engine on processors beside other work: tokens/s beside k busy single-threaded processes, against a fair share.

    PYTHONPATH=. python benchmarks/fair_share.py --model .cache/models/smollm2-135m-instruct --output shares.json

With t threads of the engine on c cores beside k busy processes, a fair share of the processor is t / (t + k) of all
cores (all of it while t + k ≤ c). The engine is started as an engine actor starts it, for every wait policy of OpenMP;
how its threads are scheduled is changed while it lives.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from ray_app.engine.settings import EngineSettings
from ray_app.engine.vllm_engine import engine_arguments, environment

POLICIES = {"other": os.SCHED_OTHER, "batch": os.SCHED_BATCH}
PROMPT = "Judge which of two answers is better. " * 12


def spin(stop: Any) -> None:
    """A busy process of one thread."""
    while not stop.is_set():
        for _ in range(1_000_000):
            pass


def schedule_all(policy: int) -> None:
    """Every thread of this process, as `sched_setscheduler` sets one."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setscheduler(int(thread), policy, os.sched_param(0))


def measured(llm: Any, tokens: int, rows: int) -> float:
    """Tokens a second of one batch; no two batches share a prefix."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    prompts = [f"{time.monotonic_ns()} {i} {PROMPT}" for i in range(rows)]
    started = time.monotonic()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    return sum(len(o.outputs[0].token_ids) for o in outputs) / (time.monotonic() - started)


def environment_of(wait: str) -> dict[str, str]:
    """`default`, a policy of OpenMP's, or how often libgomp looks before a waiting thread sleeps."""
    if wait == "default":
        return {}
    return {"GOMP_SPINCOUNT": wait} if wait.isdigit() else {"OMP_WAIT_POLICY": wait}


def run_engine(arguments: argparse.Namespace, wait: str, results: Any) -> None:
    """All of one engine: {schedule: {k: [tokens/s]}}."""
    settings = EngineSettings(
        model=arguments.model, device="cpu", dtype=arguments.dtype, max_model_len=1024, max_num_seqs=32,
        cpu_threads=arguments.threads, env=environment_of(wait),
    )  # fmt: skip
    os.environ.update(environment(settings))
    from vllm import LLM

    llm = LLM(**engine_arguments(settings))
    measured(llm, 8, 8)
    found: dict[str, dict[int, list[float]]] = {}
    context = multiprocessing.get_context("spawn")
    for _ in range(arguments.repeats):
        for name in arguments.schedules:
            for k in (0, 1, 2):
                stop = context.Event()
                busy = [context.Process(target=spin, args=(stop,)) for _ in range(k)]
                for process in busy:
                    process.start()
                time.sleep(1.0 if busy else 0)
                schedule_all(POLICIES[name])
                rate = measured(llm, arguments.tokens, arguments.rows)
                schedule_all(os.SCHED_OTHER)
                stop.set()
                for process in busy:
                    process.join()
                found.setdefault(name, {}).setdefault(k, []).append(rate)
    results.put(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--waits", nargs="+", default=["default", "PASSIVE", "ACTIVE"])
    parser.add_argument("--schedules", nargs="+", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    cores, context, lines = os.cpu_count() or 1, multiprocessing.get_context("spawn"), []
    for wait in arguments.waits:
        results = context.Queue()
        engine = context.Process(target=run_engine, args=(arguments, wait, results))
        engine.start()
        found = results.get()
        engine.join()
        for schedule, by_k in found.items():
            alone = statistics.median(by_k[0])
            for k, rates in by_k.items():
                fair = min(1.0, cores / (arguments.threads + k))
                rate = statistics.median(rates)
                lines.append({
                    "omp_wait_policy": wait, "schedule": schedule, "busy": k, "tokens_per_second": rates,
                    "median": rate, "of_alone": rate / alone, "of_fair_share": rate / alone / fair,
                })  # fmt: skip
                print(f"{wait:8} {schedule:6} k={k} {rate:7.1f} tok/s {rate / alone:5.2f} of alone, "
                      f"{rate / alone / fair:5.2f} of a fair share", flush=True)  # fmt: skip
    if arguments.output:
        flags = Path("/proc/cpuinfo").read_text()
        name = next((line.split(":")[1].strip() for line in flags.splitlines() if "model name" in line), "")
        about = {
            "processor": name,
            "cores": cores,
            "kernel": platform.release(),
            "threads": arguments.threads,
            "dtype": arguments.dtype,
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({**about, "lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
