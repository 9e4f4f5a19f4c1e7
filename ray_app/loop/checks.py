"""What is refused, or warned of, before any work of a run is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import ray

from ray_app.base.model_files import absolute, require_model, require_on_hub
from ray_app.base.stores import is_remote
from ray_app.engine.manager import PoolManager
from ray_app.errors import InputError
from ray_app.judging.protocol import STAGE as EVALUATION
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages import evaluation, instructions, training
from ray_app.loop.stages.inputs import Inputs
from ray_app.loop.step import Step
from ray_app.run.fingerprint import check_started
from ray_app.run.folder import RunFolder, read_record, read_started
from ray_app.run.shards import begun
from ray_app.train.settings import TrainSettings

log = logging.getLogger(__name__)


def check_interrupted(todo: list[Step]) -> None:
    """Raises InputError naming the setting and the stage whose closed shards were made with another one."""
    for step in todo:
        started = read_started(step.directory)
        if started is not None and step.resumes and begun(step.directory):
            check_started(started, step.fingerprint, str(step), step.directory)


def check_models(settings: IterateSettings) -> None:
    """Raises InputError naming the setting whose model folder is not there, or whose model cannot be trained."""
    roles = {"generator": settings.generator, "first_judge": settings.first_judge, "judge": settings.judge}
    if not settings.generates:
        roles.pop("generator")
    for role, engine in roles.items():
        if engine is not None and engine.kind == "vllm":
            require_model(engine.model, f"{role}.model")
            require_on_hub(engine.model, engine.revision, f"{role}.model")
    judge = settings.judge
    if settings.iterations and is_remote(settings.run_uri) and judge.spans_nodes:
        raise InputError(
            f"judge.executor: ray cannot serve checkpoints from {settings.runs}: they are copied to an engine's own "
            "node, and its workers may stand on others; let runs be a path on a disk that every node sees"
        )
    weights = judge.kind == "vllm" or (judge.kind == "scripted" and Path(judge.model, "config.json").is_file())
    if settings.iterations and not weights:
        raise InputError(
            f"judge.kind: {judge.kind} has no weights to train, and iterations is {settings.iterations}: use vllm "
            "for the judge (generator and first_judge may stay as they are), or iterations 0"
        )


def check_training(settings: IterateSettings) -> None:
    """Raises InputError naming a training setting that cannot work, before any engine starts."""
    from ray_app.train.check import check
    from ray_app.train.encoding import model_facts

    if settings.iterations:
        facts = model_facts(absolute(settings.judge.model), settings.judge.revision)
        check_each(settings, lambda train: check(train, facts))
        then = settings.then_dpo
        for section, starved in (
            ("judging", settings.train.recipe == "dpo" and settings.judging.sampling == "until_correct"),
            ("then_dpo.judging", then is not None and then.judging.sampling == "until_correct"),
        ):
            if starved:
                log.warning(
                    "DPO with %s.sampling until_correct: a unit whose first judgment is right has no wrong one to "
                    "prefer it to: the better the judge, the fewer rows. sampling: all draws both",
                    section,
                )


def check_each(settings: IterateSettings, checked: Callable[[TrainSettings], None]) -> None:
    """Check every training of an iteration; an error names the section that it is of."""
    for section, train in settings.trainings.items():
        try:
            checked(train)
        except InputError as fault:
            raise InputError(section + str(fault).removeprefix("train")) from fault


def tried_training(settings: IterateSettings, inputs: Inputs) -> IterateSettings:
    """`settings` as the seed can be trained: its chat template and a small copy of its class are tried, once a run.

    Raises InputError in one line where they cannot be trained right, before any judging is paid.
    """
    from ray_app.train.trial import tried

    seed, protocol = settings.judge, settings.protocol
    pair = {"pair_id": "specimen", "instruction": "Name a fruit.", "chosen": "An apple.", "rejected": "A chair."}
    _, prompt = next(protocol.pair_prompts(pair, inputs.prompt(protocol.prompt_setting)))
    model = absolute(seed.model)  # as training reads it: a worker has another working folder
    trial = tried(settings.run_uri, model, seed.revision, settings.train, prompt, seed.chat_template_kwargs)
    return settings.each_training(trial.applied)


def check_room(settings: IterateSettings, todo: list[Step], pools: PoolManager) -> None:
    """Raises InputError naming what is asked and what the cluster has, where it cannot grow: before any work."""
    from ray_app.train.check import check

    engines = {"generator": settings.generator, "first_judge": settings.first_judge, "judge": settings.judge}
    if pools.may_grow:
        return
    for role in sorted({step.role for step in todo if step.role}):
        pools.require_room(role, engines[role] or settings.judge)
    if any(step.kind == training.STAGE for step in todo):
        check_each(settings, lambda train: check(train, None, ray.cluster_resources()))


def check_benchmarks(settings: IterateSettings, inputs: Inputs, todo: list[Step]) -> None:
    """Raises InputError naming a benchmark that is not there, or the fault of its file, before any work is done."""
    if any(step.kind in (EVALUATION, evaluation.BASELINE) for step in todo):
        for spec in settings.benchmarks:
            inputs.gold_set(spec, settings.evaluation.limit)


def warn_of_late_benchmarks(settings: IterateSettings, inputs: Inputs, folder: RunFolder) -> dict[str, int]:
    """Warn of benchmarks that were configured after the instructions were decontaminated; returns how many instructions
    share text with each.
    """
    made = read_record(folder.stage_dir(instructions.STAGE))
    if made is None:
        return {}
    checked = made.extra.get(instructions.CHECKED, ())
    late = instructions.late_overlap(settings, inputs, folder, checked)
    for name, count in late.items():
        log.warning("%s came after the instructions: %d of %d share an n-gram with it", name, count, made.rows_out)
    return late
