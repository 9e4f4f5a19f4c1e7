"""The settings tree of the loop: one typed place, loaded by `command.load_settings`. Where the paper names
a value it is the default; docs/differences.md says what is done otherwise.

Engine and training settings live beside their code (`engine/settings.py`, `train/settings.py`); `judge` and
`evaluate` have small trees of their own in their modules, built from the same parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ray_app.base.settings_parts import CommandSettings, Part, PriceSettings, SamplingSettings
from ray_app.engine.settings import EngineSettings
from ray_app.findings.settings import AlarmSettings
from ray_app.judging.settings import JudgingSettings
from ray_app.loop.data_settings import InstructionSettings, PairSettings
from ray_app.loop.then_dpo import ThenDpoSettings, inherited
from ray_app.run.shard_settings import ShardSettings
from ray_app.system.cluster_settings import RaySettings
from ray_app.train.settings import TrainSettings

if TYPE_CHECKING:
    from ray_app.judging.protocol import PairProtocol


class EvaluationSettings(Part):
    """Judging pairs with gold labels (paper, section 4.2): greedy, or votes."""

    validation: str | None = Field(None, description="NAME[=PATH] of the gold pairs that select a checkpoint")
    test: tuple[str, ...] = Field((), description="NAME[=PATH] of the benchmarks that are reported")
    heldout: bool = Field(True, description="judge the held-out synthetic pairs too")
    limit: int | None = Field(None, ge=1, description="rows of each set")
    votes: int = Field(1, ge=1, description="samples an order; 1 is greedy")
    generation: SamplingSettings = SamplingSettings(temperature=0, top_p=1)
    early_stop: bool = Field(True, description="ask for no vote that can no longer change the majority")
    max_engine_errors: float = Field(
        0.01, ge=0, le=1, description="a set of which a larger share failed in the engines is not committed"
    )
    baseline_prompts: tuple[str, ...] = Field(
        (),
        description="the seed is evaluated with these prompts too (files, or shipped names), a row each in the table",
    )
    price: PriceSettings = PriceSettings()


class PromptSettings(Part):
    """Prompt files: a path, or the name of a file in ray_app/prompt_files/."""

    judge: str = Field("judge_pairwise", description="asks for a verdict on two responses")
    judge_single: str = Field("judge_single", description="asks for a score of one response")
    modify_instruction: str = Field(
        "modify_instruction", description="asks for a similar instruction with another meaning"
    )
    modify_and_respond: str = Field("modify_and_respond", description="the same, with its response, in one call")
    worse_response: str = Field("worse_response", description="asks for a worse response")
    check_response: str = Field(
        "check_response",
        description="asks whether a response does what an instruction asks (pairs.ask_generator, judging.ask_pairs)",
    )
    classify: str = Field("classify", description="asks for an instruction's category and complexity")


class PoolSettings(Part):
    """How the engine pools of a run share the cluster. It changes no result."""

    side_by_side: Literal["auto", "never"] = Field(
        "auto", description="pairs stream into judging where the cluster holds generator and judge; never: one by one"
    )
    sleep: Literal["auto", "never"] = Field(
        "auto", description="engines on GPUs sleep where training or other engines need their GPUs; never: they end"
    )
    standby: Literal["auto", "never"] = Field(
        "auto",
        description="training workers on GPUs start while the engines still judge, and wait there for their rows; "
        "never: they start when these are there",
    )


class IterateSettings(CommandSettings):
    """`python -m ray_app.iterate`: the whole loop."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="of the run; its folder is runs/name")
    runs: str = Field(
        "runs", description="folder that holds run folders, or the URI of one on an object store (s3://…)"
    )
    seed: int = Field(0, description="of everything that is drawn: samples, orders, shuffles, the held-out split")
    iterations: int = Field(5, ge=0, description="how many judges are trained, one from the other; 0 only evaluates")
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
    then_dpo: ThenDpoSettings | None = Field(
        None, description="a second training in every iteration, DPO from the SFT checkpoint; {}: near the release's"
    )
    evaluation: EvaluationSettings = EvaluationSettings()
    alarms: AlarmSettings = AlarmSettings()

    @model_validator(mode="before")
    @classmethod
    def _then_dpo_inherits(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(given := values.get("then_dpo"), dict):
            return values
        return {**values, "then_dpo": inherited(given, values.get("judging"), values.get("train"))}

    @model_validator(mode="after")
    def _recipe_fits_mode(self) -> IterateSettings:
        needs = "train.recipe dpo" if self.train.recipe == "dpo" else "then_dpo" if self.then_dpo else ""
        if needs and not self.protocol.has_preferences:
            raise ValueError(f"{needs} needs judging.mode pairwise: a score is neither right nor wrong")
        return self

    @model_validator(mode="after")
    def _further_judgments_are_looked_at(self) -> IterateSettings:
        """A unit's further judgments for DPO are chosen by their verdict and length: nothing else of them is read."""
        parts = {"": (self.judging, self.train)}
        if self.then_dpo:
            parts["then_dpo."] = (self.then_dpo.judging, self.then_dpo.train)
        for at, (judging, train) in parts.items():
            for name in ("must_name", "must_agree"):
                if getattr(judging, name) and train.recipe == "dpo" and train.dpo.pairs_per_prompt > 1:
                    raise ValueError(
                        f"{at}judging.{name} looks at one judgment a unit: set {at}train.dpo.pairs_per_prompt 1, or "
                        f"{at}judging.{name} false"
                    )
        return self

    @model_validator(mode="after")
    def _answers_are_read(self) -> IterateSettings:
        if self.pairs.strategy == "checked_answer" and self.instructions.answer_column is None:
            raise ValueError("pairs.strategy checked_answer: instructions.answer_column must name the right answers")
        return self

    @property
    def generates(self) -> bool:
        """Whether the generator is asked for anything."""
        return self.pairs.makes or self.instructions.classify

    @model_validator(mode="after")
    def _then_dpo_fits(self) -> IterateSettings:
        then = self.then_dpo
        if then is None:
            return self
        if self.train.recipe != "sft":
            raise ValueError(f"then_dpo follows train.recipe sft, not {self.train.recipe}")
        if then.train.recipe != "dpo" or then.train.start != "seed":
            raise ValueError("then_dpo.train is DPO from the SFT checkpoint: leave recipe and start as they are")
        for name in ("mode", "stop_after_verdict"):
            if getattr(then.judging, name) != getattr(self.judging, name):
                raise ValueError(f"then_dpo.judging.{name} is that of judging: one rule holds for a whole run")
        if then.train.dtype != self.train.dtype:
            raise ValueError("then_dpo.train.dtype is that of train: a run computes in one format")
        return self

    @property
    def dpo_phase(self) -> IterateSettings:
        """The settings as the stages of the second training see them."""
        assert self.then_dpo is not None
        return self.model_copy(
            update={"judging": self.then_dpo.judging, "train": self.then_dpo.train, "then_dpo": None}
        )

    @property
    def trainings(self) -> dict[str, TrainSettings]:
        """{setting: what it says} of every training of an iteration."""
        return {"train": self.train} | ({"then_dpo.train": self.then_dpo.train} if self.then_dpo else {})

    def each_training(self, change: Callable[[TrainSettings], TrainSettings]) -> IterateSettings:
        """The settings with every training changed alike."""
        update: dict[str, Any] = {"train": change(self.train)}
        if self.then_dpo:
            update["then_dpo"] = self.then_dpo.model_copy(update={"train": change(self.then_dpo.train)})
        return self.model_copy(update=update)

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
        from ray_app.judging.registry import protocol_of  # loads far more than settings need

        return protocol_of(self.judging.mode)

    @property
    def run_uri(self) -> str:
        return f"{self.runs.rstrip('/')}/{self.name}"

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Every configured benchmark, validation first."""
        return ((self.evaluation.validation,) if self.evaluation.validation else ()) + self.evaluation.test
