"""Learning rate by step: linear warm-up, then a cosine to `lr_min` (paper, section 4: 1e-6 to 2e-7)."""

from __future__ import annotations

import math


def lr_at(step: int, *, lr: float, lr_min: float, warmup: int, total: int) -> float:
    """The rate of optimizer step `step` (from 0) out of `total`.

    Warm-up never takes more than half of a short run: otherwise a run of few steps would end inside it.
    """
    warmup = min(warmup, total // 2)
    if step < warmup:
        return lr * (step + 1) / warmup
    if total <= warmup + 1:
        return lr
    progress = min(1.0, (step - warmup) / (total - warmup - 1))
    return lr_min + (lr - lr_min) * 0.5 * (1 + math.cos(math.pi * progress))
