"""What a full fine-tune under ZeRO-3 needs of each GPU, by arithmetic, and the deepest shape that fits. Pure.

    python benchmarks/memory.py --shape 70b --gpus 24 --gib 79.6                  the parts of the sum, in GB
    python benchmarks/memory.py --shape 70b --gpus 8 --gib 140.4 --deepest        the shape with as many layers as fit

The sum is set against what was measured (benchmarks/README.md, 2 × H100): 8B, full recompute, 8,192 tokens: 69.4 GiB by
the sum, 72.9 measured. So a twentieth is added to it; what CUDA and NCCL hold outside PyTorch is added besides.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace

from shapes import Shape, shape_of

GIB = 2**30
MARGIN, OUTSIDE = 1.05, 3 * GIB


@dataclass(frozen=True)
class Plan:
    """The settings of `train.*` that memory depends on. Limits and buckets count elements."""

    gpus: int
    tokens: int = 8192  # of a micro-batch
    recompute: str = "full"
    max_live: int = 3_000_000_000
    prefetch: int = 500_000_000
    reduce: int = 500_000_000
    grad_bytes: int = 2  # 4 where gradients are summed in fp32


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU."""

    state: float  # bf16 weights, gradients, and fp32 masters with two moments: 16 a parameter, over all GPUs
    activations: float  # that stay from the forward to the backward pass
    gathered: float  # weights of other GPUs' shards, and buckets of gradients
    work: float  # the largest of: a block's recompute with its whole gradient, the output layer's gradient

    @property
    def peak(self) -> float:
        """What PyTorch is expected to hold at most."""
        return MARGIN * (self.state + self.activations + self.gathered + self.work)

    @property
    def total(self) -> float:
        """With what stands outside PyTorch."""
        return self.peak + OUTSIDE


def block_activations(shape: Shape) -> int:
    """Bytes a token that a block leaves for its backward pass, with fused kernels and FlashAttention. For the 8B shape
    135 kB; 138 kB follow from what half of its layers took above all else (`half-8k-x4` in benchmarks/README.md).
    """
    return 2 * (6 * shape.width + 3 * shape.ffn)


def memory(shape: Shape, plan: Plan) -> Memory:
    """The parts of the sum, for sequences that are packed and scored in every position."""
    size = shape.parameters
    inputs = 2 * shape.width
    whole = block_activations(shape)
    kept = {"full": inputs, "selective": (inputs + whole) / 2, "none": whole}[plan.recompute]
    block = 2 * shape.block + (0 if plan.recompute == "none" else plan.tokens * whole)
    head = 6 * shape.vocabulary * shape.width  # Liger sums it in fp32, then it is made bf16
    return Memory(
        state=(14 + plan.grad_bytes) * size / plan.gpus,
        activations=plan.tokens * kept * shape.layers,
        gathered=2 * (min(plan.max_live, size) + plan.prefetch + 2 * plan.reduce),
        work=max(block, head),
    )


def deepest(shape: Shape, plan: Plan, gib: float) -> Shape:
    """The shape with the most layers, at most its own, that fits on GPUs of so much memory. Raises ValueError."""
    for layers in range(shape.layers, 0, -1):
        fitted = replace(shape, layers=layers)
        if memory(fitted, plan).total <= gib * GIB:
            return fitted
    raise ValueError(f"not even one layer fits on {plan.gpus} GPUs of {gib:g} GiB")


def disk(shape: Shape) -> dict[str, float]:
    """GB of a saved state (fp32 masters and moments), and of an exported checkpoint in bf16."""
    return {"state": 12 * shape.parameters / 1e9, "checkpoint": 2 * shape.parameters / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="70b")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--gib", type=float, required=True, help="of one GPU")
    parser.add_argument("--tokens", type=int, default=8192, help="of a micro-batch")
    parser.add_argument("--recompute", choices=("none", "selective", "full"), default="full")
    parser.add_argument("--max-live", type=int, default=Plan.max_live)
    parser.add_argument("--grad-bytes", type=int, default=2, choices=(2, 4))
    parser.add_argument("--deepest", action="store_true", help="print the shape that fits, and nothing else")
    options = parser.parse_args()
    plan = Plan(options.gpus, options.tokens, options.recompute, options.max_live, grad_bytes=options.grad_bytes)
    shape = shape_of(options.shape)
    if options.deepest:
        print(deepest(shape, plan, options.gib))
        return
    found = memory(shape, plan)
    told = {
        "shape": str(shape),
        "parameters": shape.parameters,
        "gb_of_a_gpu": {name: round(value / 1e9, 1) for name, value in asdict(found).items()},
        "peak_gib": round(found.peak / GIB, 1),
        "with_cuda_gib": round(found.total / GIB, 1),
        "fits": found.total <= options.gib * GIB,
        "disk_gb": {name: round(value, 1) for name, value in disk(shape).items()},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
