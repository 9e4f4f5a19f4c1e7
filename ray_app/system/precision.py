"""The number format that a run computes in, where `dtype` is `auto`: bf16 where all that does the work has instructions
for it, else fp32. Decided once a run, for engines and trainer alike, so that a judge is served as it was trained.

    devices({"cpu"})        what does the work, asked on the nodes of the cluster
    decide(devices)         the format, and why (pure)
    keep(own, decided)      a run that was begun in one format goes on in it (pure)

bf16 instructions: AVX512-BF16 or AMX-BF16 (flags of /proc/cpuinfo), GPUs of compute capability 8.0 and up (CUDA C++
Programming Guide, "Compute Capabilities"). Without them a processor converts every product (docs/training.md has
figures).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_app.errors import InputError, RunError

log = logging.getLogger(__name__)
Dtype = Literal["bfloat16", "float32"]
Kind = Literal["cpu", "cuda"]
CPUINFO = Path("/proc/cpuinfo")
CPU_BF16 = frozenset({"avx512_bf16", "amx_bf16"})
GPU_BF16 = (8, 0)
RESOURCE: dict[Kind, str] = {"cpu": "CPU", "cuda": "GPU"}
ASK_S = 1800.0  # limit for a cluster without a GPU yet to bring one


@dataclass(frozen=True)
class Device:
    """A processor or GPU that does work."""

    kind: Kind
    name: str
    bf16: bool


@dataclass(frozen=True)
class Decision:
    """The format of a run, and the reason in words."""

    dtype: Dtype
    why: str


def decide(found: Sequence[Device]) -> Decision:
    """bf16 where every device has it. Pure."""
    without = next((device for device in found if not device.bf16), None)
    if without is not None:
        return Decision("float32", f"{without.name} has no bf16 instructions")
    if not found:
        return Decision("float32", "nothing is known of what will do the work")
    names = ", ".join(dict.fromkeys(device.name for device in found))
    return Decision("bfloat16", f"{names} {'has' if len(set(found)) == 1 else 'have'} bf16 instructions")


def keep(own: Dtype | None, decided: Decision) -> tuple[Dtype, str]:
    """(format, a line to log): the run's own where it was begun before, whatever this machine would take. Pure."""
    if own is None:
        return decided.dtype, f"dtype auto: {decided.dtype}, for {decided.why}"
    if own == decided.dtype:
        return own, f"dtype auto: {own}, as this run was begun"
    return own, f"dtype auto: this run was begun in {own} and goes on in it; here it would be {decided.dtype}"


def decided(kinds: Collection[Kind], own: Dtype | None = None, grows: bool = False) -> Dtype:
    """The format of a run whose work `kinds` do, or `own` where it was begun in that; the log says which and why."""
    dtype, line = keep(own, decide(devices(kinds, grows and own is None)))
    log.info("%s", line)
    return dtype


def devices(kinds: Collection[Kind], grows: bool = False) -> list[Device]:
    """What does the work: the processors or GPUs of every node that has some. Ray must be initialised.

    A cluster that grows, and has no GPU yet, is asked for one. Raises RunError when none comes.
    """
    here = ray.get_runtime_context().get_node_id()
    found: list[Device] = []
    asked: list[Any] = []
    for kind in sorted(set(kinds)):
        nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get(RESOURCE[kind], 0) > 0]
        if kind == "cuda" and not nodes and grows:
            asked.append(_asked(kind, {"num_gpus": 1}))
        for node in nodes:
            if node["NodeID"] == here:
                found += devices_here(kind)
            else:
                where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                asked.append(_asked(kind, {"num_cpus": 0, "scheduling_strategy": where}))
    try:
        for answer in ray.get(asked, timeout=ASK_S):
            found += answer
    except ray.exceptions.GetTimeoutError:
        raise RunError(f"dtype auto: no node said within {ASK_S:.0f} s what its processors or GPUs are") from None
    return found


def _asked(kind: Kind, where: Mapping[str, Any]) -> Any:
    return ray.remote(devices_here).options(**where).remote(kind)


def devices_here(kind: Kind) -> list[Device]:
    """The processor, or the GPUs, of this machine."""
    return [processor(_cpuinfo(), os.environ)] if kind == "cpu" else _gpus()


def processor(cpuinfo: str, environment: Mapping[str, str]) -> Device:
    """The processor that /proc/cpuinfo describes, as far as oneDNN may use it. Pure."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    # ONEDNN_MAX_CPU_ISA keeps oneDNN, which multiplies bf16 matrices for PyTorch, from what the processor has.
    limit = environment.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    allowed = any(part in limit for part in ("BF16", "AMX", "FP16", "DEFAULT", "ALL"))
    return Device(
        "cpu",
        fields.get("model name", "this processor"),
        allowed and bool(CPU_BF16 & set(fields.get("flags", "").split())),
    )


def _cpuinfo() -> str:
    try:
        return CPUINFO.read_text()
    except OSError:
        return ""


def _gpus() -> list[Device]:
    """The GPUs that this process may use, by NVML: it needs neither a CUDA context nor GPUs that Ray has assigned."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as fault:  # no library, or no driver
        raise InputError(f"dtype auto: the GPUs cannot be asked ({fault}): name bfloat16 or float32") from None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [
            Device(
                "cuda",
                str(pynvml.nvmlDeviceGetName(handle)),
                tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)) >= GPU_BF16,
            )
            for index, handle in enumerate(handles)
            if _may_use(index, str(pynvml.nvmlDeviceGetUUID(handle)), os.environ)
        ]
    finally:
        pynvml.nvmlShutdown()


def _may_use(index: int, uuid: str, environment: Mapping[str, str]) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves a GPU in: it names them by index, or by the beginning of their UUID. Pure."""
    named = [part.strip() for part in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    # An empty list hides all; Ray gives it to tasks that asked for no GPU, and the node still has them.
    return not named or any(part == str(index) or (len(part) > 3 and uuid.startswith(part)) for part in named)


def warn_if_slow(setting: str, dtype: str, kind: Kind) -> None:
    """Tell of bf16 that was asked for by name on a processor that has to emulate it."""
    if dtype != "bfloat16" or kind != "cpu":
        return
    slow = next((device for device in devices({kind}) if not device.bf16), None)
    if slow is not None:
        log.warning("%s: bfloat16 on %s, which has no bf16 instructions: %s", setting, slow.name, SLOW)


SLOW = (
    "engines take about 5 times as long as in float32, training 5 times (AVX-512) to 60 times (AVX2); "
    "auto would take float32"
)
