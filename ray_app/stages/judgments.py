"""Judgments: M(i-1) judges both orders of every training pair; rejection sampling marks what is kept (section 3.3).

In pointwise mode it scores both responses of every pair instead; the scores table then lies in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_app.config import IterateSettings
from ray_app.engine.settings import EngineSettings
from ray_app.errors import RunError
from ray_app.programs.judge import JudgeProgram
from ray_app.programs.rows import pair_units, score_unit
from ray_app.programs.score import ScoreProgram
from ray_app.prompts import load_prompt
from ray_app.run.shards import column_values
from ray_app.runner import StageResult, sampling_from
from ray_app.schema import JUDGMENTS, SCORES, TRAIN
from ray_app.stages.context import Context
from ray_app.verdict import SCORES as SCORE_VERDICTS

STAGE = "judgments"


def settings_of(settings: IterateSettings, judge: Mapping[str, Any]) -> dict[str, Any]:
    """What the stage's fingerprint covers. `judge` is the identity of the engine that judges."""
    return {
        "seed": settings.seed,
        "judging": settings.judging.model_dump(mode="json", exclude={"balance"}),
        "judge": judge,
        "prompts": {"judge": load_prompt(settings.judge_prompt).hash},
    }


def run(context: Context, iteration: int, engine: EngineSettings, judge_name: str) -> StageResult:
    """Write iter_NN/judgments/ and return its numbers. `engine` serves the judge M(iteration - 1)."""
    pairs_dir = context.pairs_dir(iteration)
    training = sum(split == TRAIN for split in column_values(pairs_dir, "split"))
    if not training:
        raise RunError(f"no pair to judge: {pairs_dir} holds none of the split {TRAIN!r}")
    pairs = context.dataset(pairs_dir).filter(lambda row: row["split"] == TRAIN)
    pointwise = context.settings.judging.mode == "pointwise"
    directory = context.folder.stage_dir(STAGE, iteration)
    result = context.runner.run(
        stage=STAGE,
        directory=directory,
        schema=SCORES if pointwise else JUDGMENTS,
        key=("pair_id",) if pointwise else ("pair_id", "order"),
        source=pairs.map(score_unit) if pointwise else pairs.flat_map(lambda row: list(pair_units(row))),
        total=training if pointwise else 2 * training,
        program=program(context.settings, iteration, judge_name),
        engine=engine,
        role="judge",
        iteration=iteration,
    )
    verdicts = list(column_values(directory, "score" if pointwise else "verdict"))
    unparsed = sum(verdict is None for verdict in verdicts)
    rate = unparsed / len(verdicts) if verdicts else None
    return result.with_extra({"samples": len(verdicts), "unparsed": unparsed, "unparsed_rate": rate})


def program(settings: IterateSettings, iteration: int, judge_name: str) -> JudgeProgram | ScoreProgram:
    """The judging program of these settings."""
    part = settings.judging
    common: dict[str, Any] = {
        "prompt": load_prompt(settings.judge_prompt),
        "mode": part.sampling,
        "samples": part.samples,
        "judge": judge_name,
        "run_seed": settings.seed,
        "iteration": iteration,
        "stage": STAGE,
    }
    if part.mode == "pointwise":
        sampling = sampling_from(part.generation, part.stop_after_verdict, SCORE_VERDICTS)
        return ScoreProgram(**common, sampling=sampling, key=("pair_id",))
    sampling = sampling_from(part.generation, part.stop_after_verdict)
    return JudgeProgram(**common, sampling=sampling, key=("pair_id", "order"))
