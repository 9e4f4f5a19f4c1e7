"""Settings of rejection sampling (`judging.…`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ray_app.base.settings_parts import Part, SamplingSettings

Mode = Literal["pairwise", "pointwise"]


class JudgingSettings(Part):
    """Rejection sampling of judgments (paper, section 3.3)."""

    mode: Mode = Field("pairwise", description="judge pairs in both orders, or score single responses (section 7)")
    sampling: Literal["until_correct", "all"] = Field(
        "until_correct", description="draw up to the first correct judgment, or always all N"
    )
    samples: int = Field(15, ge=1, description="N: at most so many judgments a (pair, order)")
    generation: SamplingSettings = SamplingSettings()
    stop_after_verdict: bool = Field(True, description="generate nothing behind the verdict; off where a judge reasons")
    min_explanation: int = Field(
        0, ge=0, description="words besides the verdict that a judgment must have to be kept; drawing goes on without"
    )
    balance: bool = Field(True, description="as many verdicts of A as of B in the training set")
