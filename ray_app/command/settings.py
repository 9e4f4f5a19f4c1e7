"""Settings of the commands that use one judge: `judge` and `evaluate`. Light: nothing here loads Ray or a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ray_app.base.parsers import LAST, ParserName
from ray_app.base.settings_parts import CommandSettings, PriceSettings, SamplingSettings, voted_sampling
from ray_app.engine.settings import EngineSettings
from ray_app.judging.settings import Mode
from ray_app.serving.settings import HttpSettings
from ray_app.system.cluster_settings import RaySettings


class JudgingCommand(CommandSettings):
    """Settings of a command that serves one judge."""

    model: str | None = Field(None, description="checkpoint folder or hub id")
    engine: EngineSettings = Field(EngineSettings(model=""), description="how it is served; its model is --model")
    prompt: str | None = Field(None, description="prompt file; default: the checkpoint's own, else the shipped one")
    mode: Mode | None = Field(None, description="pairwise, or pointwise: scores 1-10; default: the checkpoint's own")
    votes: int = Field(1, ge=1, description="samples an order (pointwise: a response); 1 is greedy")
    generation: SamplingSettings | None = Field(None, description="default: greedy, or T 0.7 / top_p 0.9 for votes")
    early_stop: bool = Field(True, description="ask for no vote that can no longer change the majority")
    stop_after_verdict: bool | None = Field(
        None, description="generate nothing behind the verdict; default: the checkpoint's own"
    )
    seed: int = Field(0, description="of the votes, and of orders that are drawn")
    limit: int | None = Field(None, ge=1, description="rows of each file")
    ray: RaySettings = RaySettings()

    @property
    def sampling(self) -> SamplingSettings:
        """How its answers are sampled."""
        return voted_sampling(self.generation, self.votes)


class JudgeSettings(JudgingCommand):
    """`python -m ray_app.judge`: verdicts on a file of response pairs, or over HTTP."""

    input: str | None = Field(None, description="pairwise JSONL or Parquet: id, instruction, response_a, response_b")
    output: str | None = Field(None, description="verdict file (JSONL)")
    rank: bool = Field(False, description="rank instead: --input has id, instruction and a list of responses a row")
    preferences: str | None = Field(None, description="with --rank: the best and worst of each row for TRL (JSONL)")
    explanations: bool = Field(False, description="put the judge's texts into the verdict file too")
    serve: bool = Field(False, description="answer POST /judge over HTTP instead (docs/serving.md)")
    http: HttpSettings = HttpSettings()


class EvaluateSettings(JudgingCommand):
    """`python -m ray_app.evaluate`: a judge, or verdicts made anywhere, scored on benchmarks with gold labels."""

    benchmark: list[str] = Field([], description="NAME, NAME=PATH or PATH; may be given several times")
    output: str = Field(description="folder or URI for summaries and verdicts")
    verdicts: str | None = Field(None, description="score this verdict file of the one benchmark; no model runs")
    protocol: Literal["both_orders", "official"] = Field(
        "both_orders", description="official: one order of each pair, as its benchmark's own script draws it"
    )
    compare: str | None = Field(None, description="output folder of another run on the same benchmarks")
    max_engine_errors: float = Field(
        0.01, ge=0, le=1, description="a benchmark of which a larger share failed in the engines gets no summary"
    )
    price: PriceSettings = PriceSettings()
    parser: ParserName = Field(
        LAST, description="of verdicts: last is this project's; the others are those of published scorers"
    )
