"""Settings of rejection sampling (`judging.…`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ray_app.settings_parts import Part, SamplingSettings


class JudgingSettings(Part):
    """Rejection sampling of judgments (paper, section 3.3)."""

    mode: Literal["pairwise", "pointwise"] = Field(
        "pairwise", description="judge pairs in both orders, or score single responses (section 7)"
    )
    sampling: Literal["until_correct", "all"] = "until_correct"
    samples: int = Field(15, ge=1, description="N: at most so many judgments a (pair, order)")
    generation: SamplingSettings = SamplingSettings()
    stop_after_verdict: bool = Field(True, description="generate nothing behind the verdict; off where a judge reasons")
    balance: bool = True
