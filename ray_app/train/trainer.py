"""The driver's side of training: encode, start Ray Train, choose a candidate, leave one checkpoint behind.

    result = fit(settings.train, seed_model="…", train_files=[…], state_dir="…", checkpoint_dir="…",
                 run_name="…", seed=0, chat_template_kwargs={}, validation=None)

Ray must be initialised. The same call again continues where the last one was killed, or returns at once when its
checkpoint is committed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import ray

from ray_app.base.stores import filesystem, is_remote
from ray_app.errors import InputError, RunError
from ray_app.run import storage
from ray_app.system import precision
from ray_app.system.background import in_background
from ray_app.train.batches import total_steps
from ray_app.train.candidates import RECORD, Candidate, list_candidates, place
from ray_app.train.check import check
from ray_app.train.encoding import encode_files, hash_file, model_facts
from ray_app.train.job import Job, fit_id, plan_settings, unfenced
from ray_app.train.launch import run_workers
from ray_app.train.selection import Score, best, boundaries, should_stop
from ray_app.train.settings import TrainSettings
from ray_app.train.standby import FOLDER as STANDBY
from ray_app.train.standby import Standby
from ray_app.train.state import Progress, drop, read_progress, read_spent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """What selects a candidate. `identity` names what `judge` computes: scores of another one are never used."""

    judge: Callable[[Candidate], Score]
    identity: str = ""


def no_room_needed() -> None:
    """The GPUs are free as it is."""


@dataclass(frozen=True)
class TrainResult:
    """What a fit did. `losses` has one number a logged step; `quarantine` are rows that could not be encoded.

    `spent` is what the time of this call went into, seconds by cause; `state.STEPS` among them is no waiting.
    `candidates` are all exported steps (after the commit only the last and the selected still have files), `scores`
    their validations, `selected` the step that became the checkpoint.
    """

    rows: int
    steps: int
    epochs: float
    tokens: int
    seconds: float
    losses: list[float]
    metrics: list[dict[str, float]]
    candidates: list[Candidate]
    selected: int
    scores: list[Score] = field(default_factory=list)
    quarantine: list[dict[str, str]] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict, compare=False)  # of the call, not of the fit
    cut_from: int | None = None  # the steps of all epochs, where `train.max_steps` made them fewer


def fit(
    settings: TrainSettings,
    *,
    seed_model: str,
    revision: str | None = None,
    train_files: Sequence[str],
    state_dir: str,
    checkpoint_dir: str,
    run_name: str,
    seed: int,
    chat_template_kwargs: Mapping[str, Any],
    validation: Validation | None = None,
    make_room: Callable[[], None] = no_room_needed,
    may_grow: bool = False,
    origin: str = "",
    standby: Standby | None = None,
    fence: Callable[[], None] = unfenced,
) -> TrainResult:
    """Fine-tune `seed_model` on `train_files` and leave a Hugging Face folder at `checkpoint_dir`.

    `revision` is that of a seed model from the hub; `origin` names the training that made `seed_model`, where one did.
    `state_dir` and `checkpoint_dir` are paths every node sees, or fsspec URIs. `validation` scores a candidate with the
    trainer's GPUs free (`train.selection` says when); without it the last step is taken. `make_room` is called whenever
    workers are about to start; `standby` are some that have, and end with this call. `fence` (picklable) raises once
    the folders are another driver's: workers ask it before they save, this call before it replaces or removes anything.
    Raises InputError (settings, files), RunError (no row is left to train on; workers kept dying).
    """
    started = time.monotonic()
    kind: precision.Kind = "cuda" if settings.use_gpu else "cpu"
    if settings.dtype == "auto":
        settings = settings.decided(precision.decided({kind}, grows=may_grow))
    template = dict(chat_template_kwargs)
    check(settings, model_facts(seed_model, revision), ray.cluster_resources(), may_grow)
    files = [hash_file(name) for name in train_files]
    identity = fit_id(settings, seed_model, files, seed, template, revision, origin)
    committed = read_record(checkpoint_dir, identity, validation.identity if validation else "")
    work_dir = f"{_absolute(state_dir)}/{identity}"
    if committed is not None:
        fence()
        drop(work_dir)  # the last call may have been killed before it tidied up
        return committed
    warn_of_other_fits(state_dir, identity)
    spent: dict[str, float] = {}
    encoded = in_background(lambda: encode_files(settings, seed_model, train_files, template, revision))
    if not list_candidates(work_dir):  # the processors encode while the GPUs are given up
        make_room()
    with timed(spent, "rows are encoded"):
        refs, lengths, quarantine = encoded.result()
    if not lengths:
        raise RunError(f"no row of the training set can be trained on: {len(quarantine)} quarantined")
    plan = plan_settings(settings, seed)
    steps, whole = (total_steps(lengths, plan, settings.epochs, most) for most in (settings.max_steps, None))
    job = Job(
        *(settings, seed_model, run_name, seed, refs, work_dir, steps, steps),
        candidates=settings.keep_candidates and validation is not None,
        revision=revision,
        fence=fence,
    )
    cut = f" of {whole} (train.max_steps)" if steps < whole else ""
    log.info("training %s: %d rows, %d steps%s on %d workers", run_name, len(lengths), steps, cut, settings.workers)
    scores, progress = train_and_select(job, validation, make_room, spent, standby)
    seconds = time.monotonic() - started
    result = result_of(progress, list_candidates(work_dir), scores, len(lengths), seconds, quarantine)
    result = replace(result, spent=dict(spent), cut_from=whole if cut else None)
    commit(result, checkpoint_dir, identity, work_dir, validation.identity if validation else "", fence)
    return result


def warn_of_other_fits(state_dir: str, identity: str) -> None:
    """Say that an interrupted fit is not continued, because another one was asked for since (another kernel)."""
    fs, root = filesystem(state_dir)
    begun = fs.ls(root, detail=False) if fs.exists(root) else []
    names = {name.rstrip("/").rpartition("/")[2] for name in begun}
    others = sorted(name for name in names if not name.startswith(STANDBY))
    if others and identity not in others:
        log.warning("%s holds an earlier fit with other settings (%s): training starts anew", state_dir, others[0])


def result_of(
    progress: Progress,
    candidates: list[Candidate],
    scores: list[Score],
    rows: int,
    seconds: float,
    quarantine: list[dict[str, str]],
) -> TrainResult:
    """What training came to: the best candidate is selected, without scores the last one."""
    return TrainResult(
        rows=rows,
        steps=progress.step,
        epochs=progress.epoch,
        tokens=progress.tokens,
        seconds=seconds,
        losses=[point["loss"] for point in progress.history],
        metrics=progress.history,
        candidates=candidates,
        selected=best(scores).step if scores else candidates[-1].step,
        scores=scores,
        quarantine=quarantine,
    )


@contextlib.contextmanager
def timed(spent: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of a block to what was spent."""
    started = time.monotonic()
    try:
        yield
    finally:
        spent[name] = spent.get(name, 0.0) + time.monotonic() - started


def run_segment(job: Job, spent: dict[str, float], standby: Standby | None = None) -> None:
    """`run_workers`, with what their time went into, or those that wait. What they do not tell of is their end."""
    job, started = replace(job, started=time.time()), time.monotonic()
    if standby is None or not standby.did(job):
        run_workers(job)
    whole, told = time.monotonic() - started, read_spent(job)
    for name, seconds in (told | {"workers end": max(0.0, whole - sum(told.values()))}).items():
        spent[name] = spent.get(name, 0.0) + seconds


def train_and_select(
    job: Job,
    validation: Validation | None,
    make_room: Callable[[], None] = no_room_needed,
    spent: dict[str, float] | None = None,
    standby: Standby | None = None,
) -> tuple[list[Score], Progress]:
    """Train to the end, or segment by segment with a validation after each; returns scores and final progress. The
    first workers are those of `standby`.
    """
    spent = {} if spent is None else spent
    selection = job.settings.selection
    if validation is None or selection.when == "after":
        if not any(candidate.step == job.total_steps for candidate in list_candidates(job.work_dir)):
            make_room()
            run_segment(job, spent, standby)
        scores = judge_candidates(job, validation, selection.patience) if validation else []
        return scores, read_progress(job.work_dir, job.total_steps)
    scores = []
    for stop in boundaries(job.total_steps, job.settings.checkpoint_every):
        if not any(candidate.step >= stop for candidate in list_candidates(job.work_dir)):
            make_room()
            run_segment(replace(job, stop_at=stop), spent, standby)
            standby = None
        scores = judge_candidates(job, validation, selection.patience)
        if should_stop(scores, selection.patience):
            log.info("training stops at step %d of %d: accuracy has fallen", stop, job.total_steps)
            break
    return scores, read_progress(job.work_dir, max(score.step for score in scores))


def judge_candidates(job: Job, validation: Validation, patience: int) -> list[Score]:
    """Scores of the candidates by step; those of an earlier, killed call are read back."""
    file = f"{job.work_dir}/scores{validation.identity and '-'}{validation.identity}.json"
    known = [Score(**row) for row in storage.read_json(file)] if storage.exists(file) else []
    for candidate in list_candidates(job.work_dir):
        if should_stop(known, patience):
            break
        if candidate.step not in {score.step for score in known}:
            known.append(validation.judge(candidate))
            storage.write_json_atomic(file, [asdict(score) for score in known])
    return known


def read_record(checkpoint_dir: str, identity: str, validation: str = "") -> TrainResult | None:
    """The result of a committed fit with this identity. Raises InputError when another validation selected its
    checkpoint: the other candidates are gone, so there is nothing left to select from.
    """
    fs, root = filesystem(checkpoint_dir)
    if not fs.exists(f"{root}/{RECORD}"):
        return None
    record = json.loads(fs.cat_file(f"{root}/{RECORD}"))
    if record.pop("fit") != identity:
        return None
    if record.pop("validation", "") != validation:
        raise InputError(
            f"{checkpoint_dir} was selected with other validation settings: set them back, or remove that folder "
            "and the training state to train again"
        )
    record["candidates"] = [Candidate(**row) for row in record["candidates"]]
    record["scores"] = [Score(**row) for row in record["scores"]]
    record["spent"] = {}  # by the call that made it
    return TrainResult(**record)


def commit(
    result: TrainResult,
    checkpoint_dir: str,
    identity: str,
    work_dir: str,
    validation: str = "",
    fence: Callable[[], None] = unfenced,
) -> None:
    """Place the selected candidate with its record, then drop what is no longer needed: last and best stay."""
    chosen = next(candidate for candidate in result.candidates if candidate.step == result.selected)
    last = result.candidates[-1]
    fs, source = filesystem(chosen.path)
    record = {"fit": identity, "validation": validation, **asdict(result)}
    fence()  # another driver of the run trains the same fit in the same folders
    fs.pipe_file(f"{source}/{RECORD}", json.dumps(record).encode())
    fence()
    place(chosen, checkpoint_dir)
    fence()  # to copy a large model within a store takes minutes
    for candidate in result.candidates:
        if candidate != last:
            storage.remove(candidate.path)
    drop(work_dir)


def _absolute(uri: str) -> str:
    return uri if is_remote(uri) else os.path.abspath(filesystem(uri)[1])  # also of file://
