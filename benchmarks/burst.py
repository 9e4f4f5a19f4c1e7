"""How long an engine's process is busy with taking many samples at once, as `judging.sampling: all` asks them.

    PYTHONPATH=. python benchmarks/burst.py --samples 30720 --at-once 2048 --json benchmarks/results/burst.json
    PYTHONPATH=. python benchmarks/burst.py --samples 2000 --at-once 128                      a try

Samples come in portions of 120 (8 rows of 15), one after the other, to vLLM's AsyncLLM on a processor: SmolLM2, prompts
of 431 tokens. Told are the seconds until all were taken, and the longest time in which the process heard nothing. Of
the engine's own speed nothing is told. Runs at commits before `at_once`, too, which it then does not give.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import subprocess
import time
from pathlib import Path

from report import processor

from ray_app.engine import vllm_engine
from ray_app.engine.base import Sampling
from ray_app.engine.sample_limit import LimitedEngine
from ray_app.engine.settings import EngineSettings

PORTION, PAUSE_S, LOOK_S = 120, 0.005, 0.05
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=96, stop=("[[A]]",), include_stop=True)
PROMPT = "Which response is better? " * 80
SEATS = "at_once" in inspect.signature(LimitedEngine).parameters


async def take(model: str, samples: int, at_once: int) -> dict[str, float]:
    """Give so many samples to an engine; seconds until it had taken them, and its longest silence meanwhile."""
    vllm_engine.in_this_process = lambda settings: False  # a process of its own, as on GPUs
    engine = vllm_engine.VllmEngine(
        EngineSettings(kind="vllm", model=model, device="cpu", max_model_len=2048, max_num_seqs=64)
    )
    limited = LimitedEngine(engine, 3600.0, *([at_once] if SEATS else []))
    prepared = engine.prepare([{"role": "user", "content": PROMPT}])
    gaps = [0.0]

    async def listen() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            gaps.append(time.monotonic() - last - LOOK_S)
            last = time.monotonic()

    listening = asyncio.create_task(listen())
    began, tasks = time.monotonic(), []
    for first in range(0, samples, PORTION):
        numbers = range(first, min(samples, first + PORTION))
        tasks += [asyncio.create_task(limited.generate(prepared, SAMPLING, number)) for number in numbers]
        await asyncio.sleep(PAUSE_S)
    taken = time.monotonic() - began
    await asyncio.sleep(1)
    listening.cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await engine.close()
    return {"taken_s": round(taken, 1), "longest_silence_s": round(max(gaps), 1)}


def main() -> None:
    """Run once, print, and append to `--json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=30720)
    parser.add_argument("--at-once", type=int, default=2048)
    parser.add_argument("--model", default=".cache/models/smollm2-135m-instruct")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    row = {
        "revision": commit.stdout.strip(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "samples": args.samples,
        "at_once": args.at_once if SEATS else None,
        **asyncio.run(take(args.model, args.samples, args.at_once)),
    }
    print(json.dumps(row))
    if args.json:
        rows = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else []
        args.json.write_text(json.dumps([*rows, row], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
