"""Training: the seed model, fine-tuned on the training set of this iteration, becomes M(i) (section 3.4).

Beside the HF files of the checkpoint lies `judge.json`: what `judge` and `evaluate` need to use it as it is.
"""

from __future__ import annotations

import time
from typing import Any

from ray_app.config import IterateSettings
from ray_app.model_files import absolute
from ray_app.prompts import load_prompt
from ray_app.run.storage import list_files, write_json_atomic
from ray_app.runner import StageResult
from ray_app.schema import derive_seed
from ray_app.stages.context import Context
from ray_app.train.trainer import fit

STAGE = "training"
JUDGE_CARD = "judge.json"


def settings_of(settings: IterateSettings) -> dict[str, Any]:
    """What the stage's fingerprint covers."""
    return {
        "seed": settings.seed,
        "train": settings.train.model_dump(mode="json", exclude={"tracking", "max_failures", "timeout_s"}),
        "judge": {"model": settings.judge.model, "chat_template_kwargs": settings.judge.chat_template_kwargs},
    }


def run(context: Context, iteration: int, train_set_digest: str) -> StageResult:
    """Write iter_NN/checkpoint/ (and train_state/ on the way) and return the numbers of the fit."""
    settings, folder = context.settings, context.folder
    started = time.monotonic()
    context.runner.pools.release_for_training(settings.train)
    checkpoint = folder.checkpoint(iteration)
    result = fit(
        settings.train,
        seed_model=absolute(settings.judge.model),
        train_files=list_files(folder.stage_dir("train_set", iteration), "shard-*.parquet"),
        state_dir=folder.train_state(iteration),
        checkpoint_dir=checkpoint,
        run_name=f"{settings.name}-iter-{iteration:02d}",
        seed=derive_seed(settings.seed, iteration, STAGE, "", "", 0),
        chat_template_kwargs=settings.judge.chat_template_kwargs,
    )
    write_json_atomic(folder.join(checkpoint, JUDGE_CARD), judge_card(settings, iteration, train_set_digest))
    reasons = [fault["reason"] for fault in result.quarantine]
    return StageResult(
        rows_in=result.rows + len(reasons),
        rows_out=result.rows,
        quarantined={reason: reasons.count(reason) for reason in set(reasons)},
        seconds=time.monotonic() - started,
        extra={
            "steps": result.steps,
            "epochs": result.epochs,
            "train_tokens": result.tokens,
            "first_loss": result.losses[0] if result.losses else None,
            "last_loss": result.losses[-1] if result.losses else None,
            "selected_step": result.selected,
        },
    )


def judge_card(settings: IterateSettings, iteration: int, train_set_digest: str) -> dict[str, Any]:
    """`judge.json`: the prompt, parser and sampling this judge was trained for."""
    return {
        "format": 1,
        "run": settings.name,
        "iteration": iteration,
        "seed_model": settings.judge.model,
        "mode": settings.judging.mode,
        "prompt": load_prompt(settings.judge_prompt).to_dict(),
        "parser": f"the last {'[[1]] to [[10]]' if settings.judging.mode == 'pointwise' else '[[A]] or [[B]]'} "
        "after any </think>",
        "stop_after_verdict": settings.judging.stop_after_verdict,
        "generation": settings.evaluation.generation.model_dump(mode="json"),
        "chat_template_kwargs": settings.judge.chat_template_kwargs,
        "max_model_len": settings.judge.max_model_len,
        "train_set": train_set_digest,
    }
