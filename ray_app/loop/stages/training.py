"""Training: the seed model, fine-tuned on the training set of this iteration, becomes M(i) (section 3.4). With
`train.start: previous` it is M(i - 1) that is fine-tuned further.

Where the run has a validation set and saves checkpoints, each of them is judged on it, and the best becomes M(i).

    iter_NN/checkpoint/     HF files, and `judge.json`: what `judge` and `evaluate` need to use it as it is
    iter_NN/train_state/    DeepSpeed state, candidates, curves
    iter_NN/training/       quarantine-*.parquet; selection/FINGERPRINT/step-NNNNNN/: the votes of each candidate
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray

from ray_app.base.model_files import absolute, require_model
from ray_app.base.schema import QUARANTINE, derive_seed
from ray_app.base.stores import is_remote
from ray_app.errors import InputError
from ray_app.generation.runner import StageResult
from ray_app.judging.gold_set import judge_set
from ray_app.judging.judge import write_card
from ray_app.judging.registry import protocol_for
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import VALIDATION, Inputs, trainer_of
from ray_app.metrics import Outcome, Ratio
from ray_app.metrics.accuracy import accuracy
from ray_app.metrics.first_position import first_position_rate
from ray_app.run.folder import StageRecord, read_record
from ray_app.run.storage import list_files
from ray_app.system.background import in_background
from ray_app.system.device_time import DeviceClock
from ray_app.train.candidates import Candidate
from ray_app.train.job import Job, unfenced
from ray_app.train.selection import Score
from ray_app.train.settings import TrainSettings
from ray_app.train.standby import Standby, seats
from ray_app.train.state import STEPS
from ray_app.train.trainer import TrainResult, Validation, fit

log = logging.getLogger(__name__)
STAGE = "training"
NOT_COVERED = {"tracking", "max_failures", "timeout_s"}  # none of them changes the weights


def selects(settings: IterateSettings) -> bool:
    """Whether checkpoints are judged and the best becomes M(i); else the last step does."""
    train = settings.train
    return bool(settings.evaluation.validation) and train.checkpoint_every > 0 and train.keep_candidates


@dataclass(frozen=True)
class Start:
    """The model that a training begins with: the seed, or a checkpoint of the run. Of a checkpoint, `origin` is the
    fingerprint of the training that made it, and `name` where it lies in the run folder.
    """

    model: str
    revision: str | None = None
    origin: str = ""
    name: str = ""

    def applied(self, train: TrainSettings) -> TrainSettings:
        """The settings of the first iteration are those of a start from the seed, whatever is to follow."""
        return train if self.origin else train.model_copy(update={"start": "seed"})


def settings_of(settings: IterateSettings, inputs: Inputs, start: Start | None = None) -> dict[str, Any]:
    """What the stage's fingerprint covers; how candidates are judged only where they are."""
    train = start.applied(settings.train) if start else settings.train
    selecting = selects(settings)
    excluded = NOT_COVERED if selecting else NOT_COVERED | {"selection", "keep_candidates"}
    return {
        "seed": settings.seed,
        "train": train.covered(excluded),
        "judge": seed_of(settings),
        **(inputs.covered() if selecting else {}),
    }


def seed_of(settings: IterateSettings) -> dict[str, Any]:
    """The seed model as trained; where candidates are judged, as served too."""
    judge = settings.judge
    if selects(settings):
        return judge.identity(judge.model)
    return judge.model_dump(mode="json", include={"model", "revision", "chat_template_kwargs"})


def inputs_of(settings: IterateSettings, inputs: Inputs) -> dict[str, str]:
    """Content of the validation set, where it selects the checkpoint."""
    return inputs.content(settings.evaluation.validation) if selects(settings) else {}


def get_ready(context: Context, iteration: int, start: Start) -> None:
    """Have the workers of this training start already, where that is asked for and they have places on the cluster;
    and have this process import what the training set is encoded with.
    """
    train, state = start.applied(context.settings.train), context.folder.train_state(iteration)
    if state in context.standbys or not train.use_gpu or context.settings.pools.standby == "never" or is_remote(state):
        return
    in_background(lambda: trainer_of(context.settings).control)
    if nodes := seats(ray.nodes(), train):
        model, revision = context.settings.judge.model, context.settings.judge.revision  # a checkpoint is of its class
        context.standbys[state] = Standby.start(train, absolute(model), revision, absolute(state), nodes)


def build_early(context: Context, iteration: int, start: Start) -> None:
    """Have the workers that wait for this training build its model while its rows are chosen: nobody judges any more,
    so the engines give their GPUs back.
    """
    train, state = start.applied(context.settings.train), context.folder.train_state(iteration)
    if standby := context.standbys.get(state):
        context.runner.pools.release_for_training(train)
        seed = seed_of_fit(context, iteration)
        with context.runner.pools.clock.cause("workers start"):
            standby.build(Job(train, absolute(start.model), "", seed, (), "", 0, 0, revision=start.revision))


def seed_of_fit(context: Context, iteration: int) -> int:
    """Of everything random in this training."""
    return derive_seed(context.settings.seed, iteration, context.folder.stage_name(STAGE), "", "", 0)


def run(context: Context, iteration: int, digests: tuple[str, str], start: Start) -> StageResult:
    """Write iter_NN/checkpoint/ (and train_state/ on the way) and return the numbers of the fit.

    Raises InputError where the checkpoint that it is to begin with is gone.

    `digests` are the fingerprints of this stage and of the training set: votes on candidates that were made with other
    settings are never used.
    """
    settings, folder = context.settings, context.folder
    started, (digest, train_set_digest) = time.monotonic(), digests
    warn_of_shorter_set(settings, read_record(folder.stage_dir("train_set", iteration)))
    if start.origin:
        require_model(start.model, f"iteration {iteration} begins its training with {start.name}")
    checkpoint, state = folder.checkpoint(iteration), folder.train_state(iteration)
    with context.standby(state) as standby:
        result = fit(
            start.applied(settings.train),
            seed_model=absolute(start.model),
            revision=start.revision,
            origin=start.origin,
            train_files=list_files(folder.stage_dir("train_set", iteration), "shard-*.parquet"),
            state_dir=state,
            checkpoint_dir=checkpoint,
            run_name="-".join([settings.name, "iter", f"{iteration:02d}", *([folder.phase] if folder.phase else [])]),
            seed=seed_of_fit(context, iteration),
            chat_template_kwargs=settings.judge.chat_template_kwargs,
            validation=Validation(CandidateJudge(context, iteration, digest), digest) if selects(settings) else None,
            may_grow=context.runner.pools.may_grow,
            make_room=lambda: context.runner.pools.release_for_training(settings.train),
            standby=standby,
            fence=context.runner.fence.check if context.runner.fence else unfenced,
        )
    count_time(context.runner.pools.clock, result, settings.train.workers if settings.train.use_gpu else 1)
    write_quarantine(context, iteration, result.quarantine)
    if result.quarantine:  # the training set was made for longer rows, or another template, before settings changed
        log.warning(
            "iteration %d: %d rows of the training set cannot be trained on with these settings (%s): its letters may "
            "no longer be balanced",
            *(iteration, len(result.quarantine), result.quarantine[0]["reason"]),
        )
    write_card(
        checkpoint,
        context.inputs.judge(settings.judge, ""),
        run=settings.name,
        iteration=iteration,
        seed_model=settings.judge.model,
        parser=settings.protocol.parser,
        generation=settings.evaluation.generation.model_dump(mode="json"),
        train_set=train_set_digest,
    )
    context.written[checkpoint] = time.time()
    return StageResult(
        rows_in=result.rows + len(result.quarantine),
        rows_out=result.rows,
        quarantined=dict(Counter(fault["reason"] for fault in result.quarantine)),
        seconds=time.monotonic() - started,
        extra={
            **numbers(result),
            "dtype": settings.train.dtype,
            **({"started_from": start.name} if start.origin else {}),
        },
    )


def count_time(clock: DeviceClock, result: TrainResult, devices: float) -> None:
    """Put what a fit's time went into on the account of the run."""
    for name, seconds in result.spent.items():
        if name == STEPS:
            clock.busy(seconds * devices)
        else:
            clock.wait(name, seconds)


def warn_of_shorter_set(settings: IterateSettings, made: StageRecord | None) -> None:
    """Warn where rows were left out of the training set because they were too long then, and would not be now."""
    limit = made.extra.get("sequence_length") if made else None
    if made and limit is not None and limit < settings.train.sequence_length:
        log.warning(
            "iteration %s: %d judgments were left out when train.sequence_length was %d; remove its %s to choose anew",
            *(made.iteration, made.quarantined.get("too_long", 0), limit, made.stage),
        )


class CandidateJudge:
    """Scores a candidate on the validation set. Engines that still live from the one before get its weights."""

    def __init__(self, context: Context, iteration: int, digest: str) -> None:
        settings = context.settings
        assert settings.evaluation.validation is not None
        self.context, self.iteration = context, iteration
        self.benchmark = context.inputs.gold_set(settings.evaluation.validation, settings.evaluation.limit)
        self.protocol = protocol_for(settings.judging.mode, self.benchmark)
        if not self.protocol.judges_pairs:
            raise InputError("evaluation.validation: a checkpoint is selected on response pairs, not on best-of rows")
        self.directory = context.folder.join(context.folder.stage_dir(STAGE, iteration), "selection", digest)

    def __call__(self, candidate: Candidate) -> Score:
        context, name = self.context, f"step-{candidate.step:06d}"
        engine = context.settings.judge.of_checkpoint(candidate.path)
        judge = context.inputs.judge(engine, f"{context.folder.name_of(self.iteration)}/{name}")
        voting = context.inputs.voting(self.iteration)
        directory = context.folder.join(self.directory, name)
        most = context.settings.evaluation.max_engine_errors
        _, answers = judge_set(
            context.runner, judge, self.benchmark, voting, directory, name=VALIDATION, most_errors=most
        )
        score = score_of(candidate.step, self.protocol.outcomes(self.benchmark, answers, voting) or [])
        log.info(
            "iteration %d, step %d: validation accuracy %.3f, first position %.3f, n %d",
            *(self.iteration, score.step, score.accuracy, score.first_position_rate, score.n),
        )
        return score


def score_of(step: int, outcomes: Sequence[Outcome]) -> Score:
    """Validation of one candidate. With no parsed verdict its positions count as wholly uneven (1.0)."""
    right, first = _value(accuracy(outcomes)), _value(first_position_rate(outcomes))
    return Score(step, 0.0 if right is None else right, 1.0 if first is None else first, len(outcomes))


def _value(ratio: Ratio) -> float | None:
    total = float(ratio.denominator.sum())
    return float(ratio.numerator.sum()) / total if total else None


def write_quarantine(context: Context, iteration: int, faults: list[dict[str, str]]) -> None:
    """The rows that could not be trained on, beside stage.json. What an earlier attempt wrote is replaced."""
    directory = context.folder.stage_dir(STAGE, iteration)
    context.clear(directory)
    with context.writer(directory, QUARANTINE) as writer:
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
        **({"cut_from": result.cut_from} if result.cut_from else {}),
        "candidates": [asdict(score) for score in result.scores],
    }
