"""The settings tree of the loop: one typed place, loaded by `cli.load_settings`. Defaults are the paper's.

Engine and training settings live beside their code (`engine/settings.py`, `train/settings.py`); `judge` and
`evaluate` have small trees of their own in their modules, built from the same parts.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ray_app.cli import CommandSettings
from ray_app.cluster_settings import RaySettings
from ray_app.engine.settings import EngineSettings
from ray_app.judging import protocol_of
from ray_app.judging.protocol import PairProtocol
from ray_app.judging.settings import JudgingSettings
from ray_app.prompts import CATEGORIES
from ray_app.run.settings import ShardSettings
from ray_app.settings_parts import Part, SamplingSettings
from ray_app.train.settings import TrainSettings


class DecontaminationSettings(Part):
    """Drop instructions that share an n-gram with any row of any configured benchmark."""

    enabled: bool = True
    ngram: int = Field(13, ge=3)


class InstructionSettings(Part):
    """Where instructions come from, and which are kept (paper, section 4.1)."""

    source: str = Field(description="JSONL or Parquet file or URI, or hf:DATASET_ID")
    hf_config: str | None = None
    hf_split: str = "train"
    text_column: str = "instruction"
    id_column: str | None = "id"
    category_column: str | None = "category"
    conversation_column: str | None = Field(None, description="WildChat's nested conversation: first user turn")
    languages: tuple[str, ...] = Field((), description="keep these (as the dataset spells them); empty: all")
    drop_toxic: bool = True
    max_characters: int = Field(20_000, ge=1)
    classify: bool = False
    classify_sampling: SamplingSettings = SamplingSettings(temperature=0, max_tokens=32)
    keep_categories: tuple[str, ...] = Field((), description=f"of: {', '.join(CATEGORIES)}; empty: all")
    min_complexity: int | None = Field(None, ge=1, le=10)
    heldout_fraction: float = Field(0.02, ge=0, lt=1)
    decontamination: DecontaminationSettings = DecontaminationSettings()

    @model_validator(mode="after")
    def _categories_are_known(self) -> InstructionSettings:
        unknown = sorted(set(self.keep_categories) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"instructions.keep_categories: unknown category {unknown[0]!r}")
        return self


class PairSettings(Part):
    """How a response pair with a known better side is made (paper, section 3.2)."""

    strategy: Literal["modified_instruction", "worse_response"] = "modified_instruction"
    format: Literal["two_calls", "one_call"] = Field("two_calls", description="one_call: the paper's two-part format")
    sampling: SamplingSettings = SamplingSettings()
    modify_sampling: SamplingSettings | None = Field(None, description="of the modified instruction; null: sampling")
    max_similarity: float = Field(0.9, gt=0, le=1, description="of original and modified instruction (word trigrams)")
    refresh: Literal["never", "each_iteration"] = "never"


class EvaluationSettings(Part):
    """Judging pairs with gold labels (paper, section 4.2): greedy, or votes."""

    validation: str | None = Field(None, description="NAME[=PATH] of the gold pairs that select a checkpoint")
    test: tuple[str, ...] = Field((), description="NAME[=PATH] of the benchmarks that are reported")
    heldout: bool = Field(True, description="judge the held-out synthetic pairs too")
    limit: int | None = Field(None, ge=1, description="rows of each set")
    votes: int = Field(1, ge=1, description="samples an order; 1 is greedy")
    generation: SamplingSettings = SamplingSettings(temperature=0, top_p=1)
    early_stop: bool = True


class PromptSettings(Part):
    """Prompt files: a path, or the name of a file in ray_app/prompt_files/."""

    judge: str = "judge_pairwise"
    judge_single: str = "judge_single"
    modify_instruction: str = "modify_instruction"
    modify_and_respond: str = "modify_and_respond"
    worse_response: str = "worse_response"
    classify: str = "classify"


class PoolSettings(Part):
    """How the engine pools of a run share the cluster. It changes no result."""

    side_by_side: Literal["auto", "never"] = Field(
        "auto", description="pairs stream into judging where the cluster holds generator and judge; never: one by one"
    )


class IterateSettings(CommandSettings):
    """`python -m ray_app.iterate`: the whole loop."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="of the run; its folder is runs/name")
    runs: str = Field("runs", description="folder that holds run folders; with iterations 0, any fsspec URI")
    seed: int = 0
    iterations: int = Field(5, ge=0)
    limit: int | None = Field(None, ge=1, description="use only so many instructions")
    ray: RaySettings = RaySettings()
    shards: ShardSettings = ShardSettings()
    pools: PoolSettings = PoolSettings()
    generator: EngineSettings
    first_judge: EngineSettings | None = Field(None, description="judges iteration 1; null: the seed model does")
    judge: EngineSettings = Field(description="the seed model, and the engines of every M(i) trained from it")
    prompts: PromptSettings = PromptSettings()
    instructions: InstructionSettings
    pairs: PairSettings = PairSettings()
    judging: JudgingSettings = JudgingSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _recipe_fits_mode(self) -> IterateSettings:
        if self.train.recipe == "dpo" and not self.protocol.has_preferences:
            raise ValueError("train.recipe dpo needs judging.mode pairwise: a score is neither right nor wrong")
        return self

    @property
    def judges(self) -> dict[str, EngineSettings]:
        """{setting: engine} of everything that judges."""
        engines = {"first_judge": self.first_judge, "judge": self.judge}
        return {name: engine for name, engine in engines.items() if engine is not None}

    @property
    def stop_after_verdict(self) -> bool:
        """Whether judgments end with their verdict: one rule for judging, training and evaluation. A judge that reasons
        turns it off for all, since the next one learns from its texts.
        """
        return self.judging.stop_after_verdict and not any(engine.reasons for engine in self.judges.values())

    @property
    def protocol(self) -> PairProtocol:
        """How this run judges: `judging.mode`."""
        return protocol_of(self.judging.mode)

    @property
    def run_uri(self) -> str:
        return f"{self.runs.rstrip('/')}/{self.name}"

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Every configured benchmark, validation first."""
        return ((self.evaluation.validation,) if self.evaluation.validation else ()) + self.evaluation.test
