"""Settings of rejection sampling (`judging.…`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

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
    must_name: bool = Field(
        False,
        description="a judgment is kept only if it says a word of content that just one of the two responses has; "
        "drawing goes on without",
    )
    must_agree: bool = Field(
        False,
        description="a judgment is kept only if it does not call the other response better than its verdict names "
        "(English phrases); drawing goes on without",
    )
    ask_pairs: bool = Field(
        False,
        description="before it judges a pair, the judge is asked what pairs.ask_generator asks the generator; a pair "
        "that fails is not judged",
    )
    max_draws: int | None = Field(
        None, ge=1, description="train on a unit only if its first acceptable judgment was among so many; null: all N"
    )
    min_pass_rate: float = Field(
        0, ge=0, le=1, description="train on a unit only if so large a share of its judgments is right (sampling: all)"
    )
    balance: bool = Field(True, description="as many verdicts of A as of B in the training set")

    @model_validator(mode="after")
    def _names_need_two_responses(self) -> JudgingSettings:
        for name, why in (("must_name", "has a word"), ("must_agree", "is called better")):
            if getattr(self, name) and self.mode != "pairwise":
                raise ValueError(f"judging.{name} needs judging.mode pairwise: it asks which of two responses {why}")
        return self

    @model_validator(mode="after")
    def _rates_need_all_judgments(self) -> JudgingSettings:
        if self.min_pass_rate and (self.sampling != "all" or self.mode != "pairwise"):
            raise ValueError(
                "judging.min_pass_rate needs judging.sampling all and mode pairwise: where drawing stops at the first "
                "correct judgment, the share of correct ones is no pass rate"
            )
        return self
