"""Training: the seed model, fine-tuned on the training set of this iteration, becomes M(i) (section 3.4).

Where the run has a validation set and saves checkpoints, each of them is judged on it, and the best becomes M(i).

    iter_NN/checkpoint/     HF files, and `judge.json`: what `judge` and `evaluate` need to use it as it is
    iter_NN/train_state/    DeepSpeed state, candidates, curves
    iter_NN/training/       quarantine-*.parquet; selection/FINGERPRINT/step-NNNNNN/: the votes of each candidate
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from ray_app.benchmarks import load_benchmark
from ray_app.config import IterateSettings
from ray_app.errors import InputError
from ray_app.model_files import absolute
from ray_app.prompts import load_prompt
from ray_app.run.shards import ShardWriter
from ray_app.run.storage import list_files, write_json_atomic
from ray_app.runner import StageResult
from ray_app.schema import QUARANTINE, derive_seed
from ray_app.stages.context import Context
from ray_app.train.candidates import Candidate
from ray_app.train.selection import Score
from ray_app.train.trainer import TrainResult, Validation, fit
from ray_app.validation import VALIDATION, covered, judge_set, score_of
from ray_app.validation import inputs_of as content_of

log = logging.getLogger(__name__)
STAGE = "training"
JUDGE_CARD = "judge.json"
NOT_COVERED = {"tracking", "max_failures", "timeout_s"}  # none of them changes the weights


def selects(settings: IterateSettings) -> bool:
    """Whether checkpoints are judged and the best becomes M(i); else the last step does."""
    train = settings.train
    return bool(settings.evaluation.validation) and train.checkpoint_every > 0 and train.keep_candidates


def settings_of(settings: IterateSettings) -> dict[str, Any]:
    """What the stage's fingerprint covers; how candidates are judged only where they are."""
    selecting = selects(settings)
    excluded = NOT_COVERED if selecting else NOT_COVERED | {"selection", "keep_candidates"}
    return {
        "seed": settings.seed,
        "train": settings.train.covered(excluded),
        "judge": seed_of(settings),
        **(covered(settings) if selecting else {}),
    }


def seed_of(settings: IterateSettings) -> dict[str, Any]:
    """The seed model as trained; where candidates are judged, as served too."""
    judge = settings.judge
    if selects(settings):
        return judge.identity(judge.model)
    return judge.model_dump(mode="json", include={"model", "revision", "chat_template_kwargs"})


def inputs_of(settings: IterateSettings) -> dict[str, str]:
    """Content of the validation set, where it selects the checkpoint."""
    return content_of(settings.evaluation.validation) if selects(settings) else {}


def run(context: Context, iteration: int, digest: str, train_set_digest: str) -> StageResult:
    """Write iter_NN/checkpoint/ (and train_state/ on the way) and return the numbers of the fit.

    `digest` is the fingerprint of this stage: votes on candidates made with other settings are never used.
    """
    settings, folder = context.settings, context.folder
    started = time.monotonic()
    checkpoint = folder.checkpoint(iteration)
    result = fit(
        settings.train,
        seed_model=absolute(settings.judge.model),
        revision=settings.judge.revision,
        train_files=list_files(folder.stage_dir("train_set", iteration), "shard-*.parquet"),
        state_dir=folder.train_state(iteration),
        checkpoint_dir=checkpoint,
        run_name=f"{settings.name}-iter-{iteration:02d}",
        seed=derive_seed(settings.seed, iteration, STAGE, "", "", 0),
        chat_template_kwargs=settings.judge.chat_template_kwargs,
        validation=Validation(CandidateJudge(context, iteration, digest), digest) if selects(settings) else None,
        may_grow=context.runner.pools.may_grow,
        make_room=lambda: context.runner.pools.release_for_training(settings.train),
    )
    write_quarantine(context, iteration, result.quarantine)
    write_json_atomic(folder.join(checkpoint, JUDGE_CARD), judge_card(settings, iteration, train_set_digest))
    context.written[iteration] = time.time()
    return StageResult(
        rows_in=result.rows + len(result.quarantine),
        rows_out=result.rows,
        quarantined=dict(Counter(fault["reason"] for fault in result.quarantine)),
        seconds=time.monotonic() - started,
        extra={**numbers(result), "dtype": settings.train.dtype},
    )


class CandidateJudge:
    """Scores a candidate on the validation set. Engines that still live from the one before get its weights."""

    def __init__(self, context: Context, iteration: int, digest: str) -> None:
        settings = context.settings
        assert settings.evaluation.validation is not None
        self.context, self.iteration = context, iteration
        self.benchmark = load_benchmark(settings.evaluation.validation, settings.evaluation.limit)
        if self.benchmark.kind == "best_of":
            raise InputError("evaluation.validation: a checkpoint is selected on response pairs, not on best-of rows")
        self.directory = context.folder.join(context.folder.stage_dir(STAGE, iteration), "selection", digest)

    def __call__(self, candidate: Candidate) -> Score:
        settings, name = self.context.settings, f"step-{candidate.step:06d}"
        judged = judge_set(
            self.context.runner,
            settings,
            self.benchmark,
            name=VALIDATION,
            directory=self.context.folder.join(self.directory, name),
            engine=settings.judge.of_checkpoint(candidate.path),
            iteration=self.iteration,
            judge_name=f"iter_{self.iteration:02d}/{name}",
        )
        score = score_of(candidate.step, judged.outcomes)
        log.info(
            "iteration %d, step %d: validation accuracy %.3f, first position %.3f, n %d",
            *(self.iteration, score.step, score.accuracy, score.first_position_rate, score.n),
        )
        return score


def write_quarantine(context: Context, iteration: int, faults: list[dict[str, str]]) -> None:
    """The rows that could not be trained on, beside stage.json. What an earlier attempt wrote is replaced."""
    directory = context.folder.stage_dir(STAGE, iteration)
    context.folder.clear(directory)
    with ShardWriter(directory, QUARANTINE) as writer:
        for fault in faults:
            writer.quarantine([fault])


def numbers(result: TrainResult) -> dict[str, Any]:
    """What stage.json and metrics.jsonl say of a fit."""
    return {
        "steps": result.steps,
        "epochs": result.epochs,
        "train_tokens": result.tokens,
        "first_loss": result.losses[0] if result.losses else None,
        "last_loss": result.losses[-1] if result.losses else None,
        "selected_step": result.selected,
        "candidates": [asdict(score) for score in result.scores],
    }


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
        "stop_after_verdict": settings.stop_after_verdict,
        "generation": settings.evaluation.generation.model_dump(mode="json"),
        "chat_template_kwargs": settings.judge.chat_template_kwargs,
        "max_model_len": settings.judge.max_model_len,
        "train_set": train_set_digest,
    }
