"""PyTorch's profile of one training step: where its time goes, kernel by kernel (`train.tracking.profile_step`).

`profile/step-000004.json.gz` opens in https://ui.perfetto.dev; `kernels_of` sums it up (benchmarks/training.py).
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

from ray_app.run.storage import write_bytes_atomic

KINDS = (  # the first pattern that a kernel's name matches names its kind
    ("attention", r"flash|fmha|attn|attention|cudnn.*sdpa"),
    ("collectives", r"nccl"),
    ("matrix products", r"gemm|cutlass|nvjet|xmma|s161616|wgmma"),
    ("optimizer", r"adam|multi_tensor|lpnorm"),
    ("loss", r"cross_entropy|softmax"),
    ("copies", r"memcpy|memset|cat|copy"),
)


@contextlib.contextmanager
def profiled(folder: str, step: int) -> Iterator[None]:
    """Profile the block; its trace goes to `folder`, a local path or any fsspec URI."""
    with torch.profiler.profile() as profile:
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as local:
        file = Path(local) / "trace.json.gz"
        profile.export_chrome_trace(str(file))
        write_bytes_atomic(f"{folder}/step-{step:06d}.json.gz", file.read_bytes())


def kernels_of(trace: bytes) -> dict[str, float]:
    """Milliseconds of GPU kernels by kind, of a gzipped trace, and `busy`: how long any kernel ran. Kinds overlap."""
    events = [
        e for e in json.loads(gzip.decompress(trace))["traceEvents"] if e.get("cat", "").startswith(("kernel", "gpu_"))
    ]
    events = [e for e in events if "dur" in e and e["cat"] != "gpu_user_annotation"]
    sums: dict[str, float] = defaultdict(float)
    for event in events:
        sums[kind_of(event["name"])] += event["dur"] / 1e3
    return {**dict(sorted(sums.items(), key=lambda item: -item[1])), "busy": union_ms(events)}


def kind_of(kernel: str) -> str:
    """What a kernel is for, by its name."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, kernel, re.IGNORECASE)), "element-wise")


def union_ms(events: list[dict[str, float]]) -> float:
    """Length of the union of intervals {ts, dur} in microseconds, as milliseconds."""
    total, end = 0.0, float("-inf")
    for event in sorted(events, key=lambda e: e["ts"]):
        start, stop = max(event["ts"], end), event["ts"] + event["dur"]
        if stop > start:
            total, end = total + stop - start, stop
    return total / 1e3
