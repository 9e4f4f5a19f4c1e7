"""Training throughput of a model shape: tokens/s/GPU, MFU, peak memory. Random weights and tokens, no download.

    python benchmarks/training.py --workers 2                       # the 3.1B shape, defaults of train.*
    python benchmarks/training.py --workers 2 --set recompute=none tokens_per_batch=12288 --json out.json
    python benchmarks/training.py --matmul                          # what a plain matrix product reaches here

It runs the product's own path: Ray Train workers, the plan of batches, DeepSpeed, the recipe's loss. Only loading and
export are left out. MFU: 6 FLOPs a parameter (embeddings included) and token + causal attention, over 989 TFLOP/s;
recomputed activations do not count. RAY_ADDRESS is used if set.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from shapes import SHAPES, shape_of


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.matmul:
        report({"matmul_tflops": matmul_tflops()}, arguments.json)
        return 0
    from ray_app.train.settings import TrainSettings

    given = dict(item.split("=", 1) for item in arguments.set)
    settings = TrainSettings(**nested({**defaults(arguments), **{key: yaml.safe_load(v) for key, v in given.items()}}))
    like = arguments.export and Path(arguments.export[0], "config.json")
    config = json.loads(like.read_text()) if like else shape_of(arguments.shape).config()
    found = measure(settings, config, arguments)
    report(summary(arguments, settings, found.pop("points")) | found, arguments.json)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="3b", help=f"{', '.join(SHAPES)}, or layers,width,ffn,heads,kv,vocab[,head]")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sequence", type=int, default=4096)
    parser.add_argument("--rows", choices=["full", "mixed"], default="full", help="mixed: lengths like judgments'")
    parser.add_argument("--steps", type=int, default=6, help="measured steps, in three groups; warm-up comes before")
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--cpu", action="store_true", help="on CPU workers (to try the benchmark itself)")
    parser.add_argument("--matmul", action="store_true")
    parser.add_argument(
        "--profile", metavar="FILE", help="also sum up the GPU kernels of a warm-up step, trace to FILE"
    )
    parser.add_argument(
        "--export",
        nargs=2,
        metavar=("LIKE", "FOLDER"),
        help="train the config of a model folder, with random weights, and export it with that folder's tokenizer",
    )
    parser.add_argument("--name", default="run")
    parser.add_argument("--json", help="append the result to this file")
    parser.add_argument("--set", nargs="*", default=[], metavar="SETTING=VALUE", help="any train.* setting, dotted")
    return parser.parse_args(argv)


def defaults(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "workers": arguments.workers,
        "dtype": "bfloat16",
        "sequence_length": arguments.sequence,
        "tokens_per_batch": 2 * arguments.sequence,
        "recompute": "none",
        "checkpoint_every": 0,
        "epochs": 1,
        "use_gpu": not arguments.cpu,
        "max_failures": 0,
        "tracking.to": [],
        "tracking.profile_step": arguments.warmup if arguments.profile else None,
    }


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"zero.stage": 3} as {"zero": {"stage": 3}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, leaf = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[leaf] = value
    return tree


def measure(settings: Any, config: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run warm-up and measured steps; returns the points of the measured groups, what the time of the whole call went
    into, and, where asked for, the profiled kernels and the bytes of the export.
    """
    import ray

    from ray_app.train.check import check
    from ray_app.train.job import Job
    from ray_app.train.state import read_progress
    from ray_app.train.trainer import run_segment

    ray.init(logging_level="WARNING", log_to_driver=True)
    check(settings, None, ray.cluster_resources())
    group = max(1, arguments.steps // 3)
    total = -(-arguments.warmup // group) * group + 3 * group
    like, target = arguments.export or ("", None)
    # Beside the target, so that the export is moved and not copied.
    work_dir = tempfile.mkdtemp(prefix="ste-bench-", dir=target and Path(target).absolute().parent)
    spent: dict[str, float] = {}
    try:
        rows = ray.put(random_rows(settings, config["vocab_size"], total, arguments.rows))
        timed = settings.model_copy(update={"log_every": group, "max_steps": total})
        export = target is not None
        job = Job(timed, like, arguments.name, 0, [rows], work_dir, total, total, shape=config, export=export)
        run_segment(job, spent)
        found = {"points": read_progress(work_dir, total).history[-3:]}
        found |= {"spent_s": {name: round(seconds, 1) for name, seconds in spent.items()}}
        return found | profiled_kernels(work_dir, arguments.profile) | exported(job, target)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
        ray.shutdown()


def exported(job: Any, target: str | None) -> dict[str, Any]:
    """Moves the export to `target`; returns its size."""
    from ray_app.train.candidates import list_candidates

    if target is None:
        return {}
    shutil.move(list_candidates(job.work_dir)[-1].path, target)
    return {"export_gb": round(sum(file.stat().st_size for file in Path(target).glob("*.safetensors")) / 1e9, 3)}


def profiled_kernels(work_dir: str, target: str | None) -> dict[str, Any]:
    """Milliseconds by kind of kernel; the trace is kept at `target`."""
    from ray_app.train.profile import kernels_of

    if target is None:
        return {}
    (trace,) = Path(work_dir, "profile").glob("*.json.gz")
    shutil.copyfile(trace, target)
    return {"kernels_ms": {name: round(value, 1) for name, value in kernels_of(trace.read_bytes()).items()}}


def random_rows(settings: Any, vocabulary: int, steps: int, kind: str) -> pa.Table:
    """Enough random rows for `steps` steps; every token but the first carries a loss (the dearest case)."""
    from ray_app.train.data import ENCODED

    random = np.random.default_rng(0)
    wanted = steps * settings.workers * settings.accumulation * settings.tokens_per_batch
    lengths: list[int] = []
    while sum(lengths) < wanted + settings.tokens_per_batch * settings.workers:
        if kind == "full":
            lengths.append(settings.sequence_length)
        else:
            drawn = random.lognormal(np.log(settings.sequence_length / 4), 0.6)
            lengths.append(int(np.clip(drawn, 64, settings.sequence_length)))
    tokens = [random.integers(0, vocabulary, length).tolist() for length in lengths]
    columns = {"id": [str(i) for i in range(len(lengths))], "tokens": tokens, "prompt": [1] * len(lengths)}
    return pa.table({**columns, "side": [0] * len(lengths)}, schema=ENCODED)


def summary(arguments: argparse.Namespace, settings: Any, points: list[dict[str, float]]) -> dict[str, Any]:
    rate = statistics.median(point["tokens_per_second"] for point in points)
    result: dict[str, Any] = {
        "name": arguments.name,
        "shape": arguments.shape,
        "workers": settings.workers,
        "sequence": settings.sequence_length,
        "tokens_per_batch": settings.tokens_per_batch,
        "tokens_per_second_per_gpu": round(rate / settings.workers, 1),
        "spread": round(max(p["tokens_per_second"] for p in points) / min(p["tokens_per_second"] for p in points), 4),
        "loss": points[-1].get("loss"),
        "set": arguments.set,
    }
    if settings.use_gpu:
        result["mfu"] = round(statistics.median(point["mfu"] for point in points), 4)
        result["memory_gib"] = round(max(point["memory_gib"] for point in points), 1)
    return result


def matmul_tflops(size: int = 8192, repeats: int = 50) -> float:
    """bf16 matrix product on random data, TFLOP/s."""
    import torch

    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(repeats):
        a @ b
    stop.record()
    torch.cuda.synchronize()
    seconds: float = start.elapsed_time(stop) / 1e3
    return round(2 * size**3 * repeats / seconds / 1e12, 1)


def report(result: dict[str, Any], file: str | None) -> None:
    line = json.dumps(result)
    print(line, flush=True)
    if file:
        with Path(file).open("a") as out:
            out.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
