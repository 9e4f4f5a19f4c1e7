"""The order of the loop, as data: one step a stage and iteration, each with its folder, fingerprint and work.

Fingerprints follow from settings and input files alone, so what is done and what is left is known before Ray,
a model or a GPU is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ray_app.base.model_files import model_identity
from ray_app.engine.settings import EngineSettings
from ray_app.generation.runner import StageResult
from ray_app.generation.side_by_side import can_stream, stream
from ray_app.judging.judge import Judge
from ray_app.judging.protocol import STAGE as EVALUATION
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages import evaluation, instructions, judgments, pairs, train_set, training
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.fingerprint import Fingerprint, fingerprint
from ray_app.run.folder import RunFolder, begin


@dataclass(frozen=True)
class Feed:
    """The step that takes a step's rows while it still makes them, and both at once, or None where they cannot be."""

    directory: str
    run: Callable[[Context], tuple[StageResult, StageResult] | None]


@dataclass(frozen=True)
class Member:
    """A step that is done together with those of the same group that are left: `run` takes the names of them all."""

    group: str
    name: str
    run: Callable[[Context, Sequence[str]], list[StageResult]]


@dataclass(frozen=True)
class Step:
    """One commit of the run. `iteration` is None for what is made once."""

    stage: str
    iteration: int | None
    directory: str
    fingerprint: Fingerprint
    run: Callable[[Context], StageResult]
    label: str
    feeds: Feed | None = None
    member: Member | None = None

    @property
    def role(self) -> str | None:
        """Whose engines it needs."""
        if self.stage in (judgments.STAGE, evaluation.FIRST_JUDGE):
            return "first_judge" if self.iteration in (0, 1) else "judge"
        if self.stage == pairs.STAGE:
            return "generator" if "generator" in self.fingerprint.inputs else None
        if self.stage == instructions.STAGE and self.resumes:
            return "generator"
        return "judge" if self.stage == EVALUATION else None

    @property
    def resumes(self) -> bool:
        """Whether an interrupted attempt goes on from its closed shards; other stages clear what it left."""
        if self.stage == instructions.STAGE:
            return bool(self.fingerprint.settings["instructions.classify"])
        return self.stage not in (train_set.STAGE, training.STAGE)

    def __str__(self) -> str:
        return self.label if self.iteration is None else f"iteration {self.iteration}: {self.label}"


def judge_engine(settings: IterateSettings, folder: RunFolder, iteration: int) -> EngineSettings:
    """The engine of M(iteration); M(0) is the seed model."""
    if iteration == 0:
        return settings.judge
    return settings.judge.of_checkpoint(folder.checkpoint(iteration))


def judging_engine(settings: IterateSettings, folder: RunFolder, iteration: int) -> EngineSettings:
    """The engine that judges pairs in `iteration` ≥ 1: the first judge, then M(iteration - 1)."""
    if iteration == 1:
        return settings.first_judge or settings.judge
    return judge_engine(settings, folder, iteration - 1)


class Planner:
    """Builds the steps in order; holds the fingerprints that later steps depend on."""

    def __init__(self, settings: IterateSettings, folder: RunFolder, inputs: Inputs) -> None:
        self.settings, self.folder, self.inputs = settings, folder, inputs
        self.steps: list[Step] = []

    def plan(self) -> list[Step]:
        settings = self.settings
        made = self._instructions()
        prompts = made
        if settings.pairs.refresh == "never":
            made = self._pairs(prompts, None)
        self._evaluations(0, made, model_identity(settings.judge.model), [])
        if settings.first_judge and settings.first_judge.model != settings.judge.model:
            self._first_judge(made)
        trained_before: list[Fingerprint] = []
        for iteration in range(1, settings.iterations + 1):
            if settings.pairs.refresh == "each_iteration":
                made = self._pairs(prompts, iteration)
            trained = self._iteration(iteration, made, trained_before)
            self._evaluations(iteration, made, f"iter_{iteration:02d}", [trained])
            trained_before = [trained]
        return self.steps

    def _add(
        self,
        stage: str,
        iteration: int | None,
        wanted: Fingerprint,
        run: Callable[[Context], StageResult],
        name: str = "",
        feeds: Feed | None = None,
        member: Member | None = None,
    ) -> Fingerprint:
        directory = self.folder.stage_dir(stage, iteration)
        if name:
            directory = self.folder.join(directory, name)
        label = f"{stage.replace('_', ' ')} {name}".strip()
        self.steps.append(Step(stage, iteration, directory, wanted, run, label, feeds, member))
        return wanted

    def _instructions(self) -> Fingerprint:
        settings = self.settings
        wanted = fingerprint(
            instructions.STAGE, instructions.settings_of(settings, self.inputs), instructions.inputs_of(settings), []
        )
        return self._add(instructions.STAGE, None, wanted, instructions.run)

    def _pairs(self, upstream: Fingerprint, iteration: int | None) -> Fingerprint:
        covered, inputs = pairs.settings_of(self.settings, self.inputs), pairs.inputs_of(self.settings)
        wanted = fingerprint(pairs.STAGE, covered, inputs, [upstream.digest])
        feeds = self._judging(iteration or 1) if self.settings.iterations and self.settings.pairs.makes else None
        return self._add(pairs.STAGE, iteration, wanted, lambda context: pairs.run(context, iteration), feeds=feeds)

    def _judging(self, iteration: int) -> Feed:
        """The judgments of `iteration` while its pairs are made."""
        judge, _ = self._judge(iteration)
        return Feed(
            self.folder.stage_dir(judgments.STAGE, iteration),
            lambda context: streamed(context, iteration, judge),
        )

    def _judge(self, iteration: int) -> tuple[Judge, str]:
        """The judge of `iteration`'s pairs, and its model's identity in fingerprints."""
        engine = judging_engine(self.settings, self.folder, iteration)
        identity = model_identity(engine.model) if iteration == 1 else f"iter_{iteration - 1:02d}"
        return self.inputs.judge(engine, engine.model if iteration == 1 else identity), identity

    def _iteration(self, iteration: int, made: Fingerprint, judge: list[Fingerprint]) -> Fingerprint:
        settings = self.settings
        judging, identity = self._judge(iteration)
        judged = fingerprint(
            judgments.STAGE,
            judgments.settings_of(settings, self.inputs, judging.engine.identity(identity)),
            {},
            [made.digest, *(p.digest for p in judge)],
        )
        self._add(judgments.STAGE, iteration, judged, lambda c: judgments.run(c, iteration, judging))
        chosen = fingerprint(train_set.STAGE, train_set.settings_of(settings), {}, [judged.digest])
        self._add(train_set.STAGE, iteration, chosen, lambda c: train_set.run(c, iteration))
        seed_model = {"seed_model": model_identity(settings.judge.model)}
        inputs = seed_model | training.inputs_of(settings, self.inputs)
        trained = fingerprint(training.STAGE, training.settings_of(settings, self.inputs), inputs, [chosen.digest])
        digests = trained.digest, chosen.digest
        return self._add(training.STAGE, iteration, trained, lambda c: training.run(c, iteration, *digests))

    def _evaluations(self, iteration: int, made: Fingerprint, identity: str, judge: list[Fingerprint]) -> None:
        engine = judge_engine(self.settings, self.folder, iteration)
        self._evaluate(EVALUATION, iteration, made, identity, judge, engine)

    def _first_judge(self, made: Fingerprint) -> None:
        engine = self.settings.first_judge
        assert engine is not None
        self._evaluate(evaluation.FIRST_JUDGE, 0, made, model_identity(engine.model), [], engine)

    def _evaluate(
        self,
        stage: str,
        iteration: int,
        made: Fingerprint,
        identity: str,
        judge: list[Fingerprint],
        engine: EngineSettings,
    ) -> None:
        for name, spec in evaluation.sets_of(self.settings).items():
            if name == evaluation.HELDOUT_SET and iteration == 0 and self.settings.pairs.refresh != "never":
                continue  # there are no pairs yet
            upstream = [p.digest for p in judge]
            if name == evaluation.HELDOUT_SET:
                upstream.append(made.digest)
            covered = evaluation.settings_of(self.settings, self.inputs, engine.identity(identity), spec)
            wanted = fingerprint(stage, covered, self.inputs.content(spec), upstream)
            judged_by = self.inputs.judge(engine, engine.model if iteration == 0 else identity)
            judge_all = _evaluation(stage, iteration, evaluation.sets_of(self.settings), judged_by)
            member = Member(f"{stage} {iteration}", name, judge_all)
            self._add(stage, iteration, wanted, _alone(member), name, member=member)


def _evaluation(
    stage: str, iteration: int, specs: Mapping[str, str], judge: Judge
) -> Callable[[Context, Sequence[str]], list[StageResult]]:
    def run(context: Context, names: Sequence[str]) -> list[StageResult]:
        folder = context.folder.stage_dir(stage, iteration)
        sets = [evaluation.NamedSet(name, specs[name], context.folder.join(folder, name)) for name in names]
        return evaluation.run(context, iteration, sets, judge, stage)

    return run


def _alone(member: Member) -> Callable[[Context], StageResult]:
    return lambda context: member.run(context, [member.name])[0]


def streamed(context: Context, iteration: int, judge: Judge) -> tuple[StageResult, StageResult] | None:
    """Make the pairs of `iteration` and judge them meanwhile; None where they are to run one after the other."""
    settings, own = context.settings, context.settings.pairs.refresh == "each_iteration"
    most = judgments.training_rows(context.folder.stage_dir(instructions.STAGE)) * settings.protocol.units_per_pair
    first = pairs.job(context, iteration if own else None)
    second = judgments.job(context, iteration, judge, most)
    if settings.alarms.on_alarm == "stop":  # pairs are looked at before their judging is paid for
        return None
    if not can_stream(context.runner, first, second, settings.pools.side_by_side):
        return None
    made, judged = stream(
        context.runner,
        first,
        second,
        units=lambda rows: judgments.units_of(settings, rows),
        total=lambda: judgments.units_in(settings, first.directory),
    )
    made = pairs.with_given(context, made, iteration if own else None)
    return made, judgments.with_numbers(context, judged, iteration)


def run_step(step: Step, todo: Sequence[Step], context: Context) -> list[tuple[Step, StageResult]]:
    """Do the work of `step`, of those it is done together with, and of the step it feeds where both are left and can
    run at the same time.
    """
    feed = step.feeds
    fed = next((other for other in todo if feed and other.directory == feed.directory), None)
    begin(step.directory, step.fingerprint)
    if feed and fed:
        begin(fed.directory, fed.fingerprint)
        if both := feed.run(context):
            return list(zip((step, fed), both, strict=True))
    if group := step.member:
        members = [other for other in todo if other.member and other.member.group == group.group]
        for other in members:
            begin(other.directory, other.fingerprint)
        names = [other.member.name for other in members if other.member]
        return list(zip(members, group.run(context, names), strict=True))
    return [(step, step.run(context))]


def steps_of(settings: IterateSettings, folder: RunFolder, inputs: Inputs | None = None) -> list[Step]:
    """All steps of a run, in order. `inputs` are those that the steps will be given."""
    return Planner(settings, folder, inputs or Inputs(settings)).plan()
