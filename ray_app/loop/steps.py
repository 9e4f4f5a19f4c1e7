"""The order of the loop, as data: one step a stage and iteration, each with its folder, fingerprint and work.

Fingerprints follow from settings and input files alone, so what is done and what is left is known before Ray,
a model or a GPU is touched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ray_app.base.model_files import model_identity
from ray_app.benchmarks.registry import shows_four
from ray_app.engine.settings import EngineSettings
from ray_app.generation.runner import StageResult
from ray_app.generation.side_by_side import can_stream, stream
from ray_app.judging.judge import Judge
from ray_app.judging.protocol import STAGE as EVALUATION
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages import evaluation, instructions, judgments, pairs, train_set, training
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.loop.step import Ahead, Feed, Member, Step, Together
from ray_app.run.fingerprint import Fingerprint, fingerprint
from ray_app.run.folder import DPO, RunFolder, parts_of

Made = TypeVar("Made")


@dataclass(frozen=True)
class Phase:
    """One training of an iteration and what leads to it: settings and folders of its own."""

    settings: IterateSettings
    folder: RunFolder
    enter: Callable[[Context], Context]  # the run as the stages of this phase see it


@dataclass(frozen=True)
class Examinee:
    """A judge that is evaluated: its engine, its model's identity in fingerprints, and what it was made from."""

    stage: str
    iteration: int
    engine: EngineSettings
    identity: str
    made_from: tuple[Fingerprint, ...] = ()
    prompt: str = ""  # one of `evaluation.baseline_prompts` in place of the run's own
    told: Mapping[str, str] = field(default_factory=dict)  # what stage.json says of it besides
    before: str | None = None  # the folder of the evaluations that its own are compared with


def final_folder(settings: IterateSettings, folder: RunFolder) -> RunFolder:
    """The folders in which an iteration's last training lies."""
    return folder.of_phase(DPO) if settings.then_dpo else folder


def judge_engine(settings: IterateSettings, folder: RunFolder, iteration: int) -> EngineSettings:
    """The engine of M(iteration), what the last training of an iteration made; M(0) is the seed model."""
    if iteration == 0:
        return settings.judge
    return settings.judge.of_checkpoint(final_folder(settings, folder).checkpoint(iteration))


def judging_engine(settings: IterateSettings, folder: RunFolder, iteration: int) -> EngineSettings:
    """The engine that judges pairs in `iteration` ≥ 1: the first judge, then M(iteration - 1)."""
    if iteration == 1:
        return settings.first_judge or settings.judge
    return judge_engine(settings, folder, iteration - 1)


class Planner:
    """Builds the steps in order; holds the fingerprints that later steps depend on."""

    def __init__(self, settings: IterateSettings, folder: RunFolder, inputs: Inputs) -> None:
        self.settings, self.folder, self.inputs = settings, folder, inputs
        self.final = final_folder(settings, folder)
        self.steps: list[Step] = []
        self.first = Phase(settings, folder, lambda context: context)
        self.second = Phase(settings.dpo_phase, folder.of_phase(DPO), Context.dpo) if settings.then_dpo else None

    def plan(self) -> list[Step]:
        settings = self.settings
        made = self._instructions()
        prompts = made
        if settings.pairs.refresh == "never":
            made = self._pairs(prompts, None)
        self._evaluate(made, Examinee(EVALUATION, 0, settings.judge, model_identity(settings.judge.model)))
        if settings.first_judge and settings.first_judge.model != settings.judge.model:
            self._first_judge(made)
        self._baselines(made)
        trained_before: list[Fingerprint] = []
        for iteration in range(1, settings.iterations + 1):
            if settings.pairs.refresh == "each_iteration":
                made = self._pairs(prompts, iteration)
            trained_before = [self._iteration(iteration, made, trained_before)]
        return self.steps

    def _add(
        self,
        stage: str,
        iteration: int | None,
        wanted: Fingerprint,
        run: Callable[[Context], StageResult],
        name: str = "",
        feeds: Feed | None = None,
        phase: Phase | None = None,
        member: Member | None = None,
        ahead: Ahead | None = None,
    ) -> Fingerprint:
        phase = phase or self.first
        directory = phase.folder.stage_dir(stage, iteration)
        if name:
            directory = self.folder.join(directory, name)
        label = f"{wanted.stage.replace('_', ' ')} {name}".strip()
        enter = phase.enter
        begun = Ahead(_entering(enter, ahead.judged), _entering(enter, ahead.chosen)) if ahead else None
        whole = _entering(enter, run)
        self.steps.append(Step(wanted.stage, iteration, directory, wanted, whole, label, feeds, member, begun))
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
        identity = model_identity(engine.model) if iteration == 1 else self.final.name_of(iteration - 1)
        return self.inputs.judge(engine, engine.model if iteration == 1 else identity), identity

    def _iteration(self, iteration: int, made: Fingerprint, before: list[Fingerprint]) -> Fingerprint:
        """An iteration's steps; `before` is the training that made M(iteration - 1). Returns that of M(iteration)."""
        judge, identity = self._judge(iteration)
        start = self._start(iteration, before)
        trained = self._trained(self.first, iteration, [made, *before], judge, identity, start)
        folder = self.folder if iteration == 1 else self.final
        self._examined(self.first, iteration, made, trained, folder.stage_dir(EVALUATION, iteration - 1))
        if self.second is None:
            return trained
        own, sft = self.folder.name_of(iteration), self.folder.checkpoint(iteration)
        judge = self.inputs.judge(self.settings.judge.of_checkpoint(sft), own)
        start = training.Start(sft, None, trained.digest, f"{own}/checkpoint")
        trained = self._trained(self.second, iteration, [made, trained], judge, own, start)
        self._examined(self.second, iteration, made, trained, self.folder.stage_dir(EVALUATION, iteration))
        return trained

    def _trained(
        self,
        phase: Phase,
        iteration: int,
        judged_from: list[Fingerprint],
        judge: Judge,
        identity: str,
        start: training.Start,
    ) -> Fingerprint:
        """Judgments, training set and training of one phase; `identity` is that of the judge's model."""
        settings, named = phase.settings, phase.folder.stage_name
        covered = judgments.settings_of(settings, self.inputs, judge.engine.identity(identity))
        judged = fingerprint(named(judgments.STAGE), covered, {}, [part.digest for part in judged_from])
        self._add(judgments.STAGE, iteration, judged, lambda c: judgments.run(c, iteration, judge), phase=phase)
        chosen = fingerprint(named(train_set.STAGE), train_set.settings_of(settings), {}, [judged.digest])
        self._add(train_set.STAGE, iteration, chosen, lambda c: train_set.run(c, iteration), phase=phase)
        inputs = {"seed_model": model_identity(settings.judge.model)} | training.inputs_of(settings, self.inputs)
        upstream = [chosen.digest, *([start.origin] if start.origin else [])]
        covered = training.settings_of(settings, self.inputs, start)
        trained = fingerprint(named(training.STAGE), covered, inputs, upstream)
        digests = trained.digest, chosen.digest
        run = functools.partial(training.run, iteration=iteration, digests=digests, start=start)
        begins = (training.get_ready, training.build_early)
        ahead = Ahead(*(functools.partial(begin, iteration=iteration, start=start) for begin in begins))
        return self._add(training.STAGE, iteration, trained, run, phase=phase, ahead=ahead)

    def _start(self, iteration: int, before: list[Fingerprint]) -> training.Start:
        """What the training of `iteration` begins with; `before` is the training that made M(iteration - 1)."""
        if self.settings.train.start == "previous" and before:
            place = self.final.name_of(iteration - 1)
            return training.Start(self.final.checkpoint(iteration - 1), None, before[0].digest, f"{place}/checkpoint")
        return training.Start(self.settings.judge.model, self.settings.judge.revision)

    def _examined(self, phase: Phase, iteration: int, made: Fingerprint, trained: Fingerprint, before: str) -> None:
        """The evaluations of what a phase has trained."""
        engine = self.settings.judge.of_checkpoint(phase.folder.checkpoint(iteration))
        identity, named = phase.folder.name_of(iteration), phase.folder.stage_name(EVALUATION)
        examinee = Examinee(named, iteration, engine, identity, (trained,), before=before)
        self._evaluate(made, examinee, phase)

    def _baselines(self, made: Fingerprint) -> None:
        """The seed as it judges with other prompts."""
        seed = self.settings.judge
        for prompt in self.inputs.baselines:
            told = {"prompt": prompt}
            baseline = Examinee(evaluation.BASELINE, 0, seed, model_identity(seed.model), (), prompt, told)
            self._evaluate(made, baseline)

    def _first_judge(self, made: Fingerprint) -> None:
        engine = self.settings.first_judge
        assert engine is not None
        told = {"judge": engine.model}
        self._evaluate(made, Examinee(evaluation.FIRST_JUDGE, 0, engine, model_identity(engine.model), told=told))

    def _evaluate(self, made: Fingerprint, judge: Examinee, phase: Phase | None = None) -> None:
        for name, spec in evaluation.sets_of(self.settings).items():
            if name == evaluation.HELDOUT_SET and judge.iteration == 0 and self.settings.pairs.refresh != "never":
                continue  # there are no pairs yet
            if judge.prompt and spec and shows_four(spec) and self.settings.protocol.shows_both:
                continue  # best-of rows have prompts of their own by letter: the seed's figure is this one too
            upstream = [p.digest for p in judge.made_from]
            if name == evaluation.HELDOUT_SET:
                upstream.append(made.digest)
            prompt = self.inputs.baselines[judge.prompt] if judge.prompt else None
            identity = judge.engine.identity(judge.identity)
            covered = evaluation.settings_of(self.settings, self.inputs, identity, spec, prompt)
            wanted = fingerprint(judge.stage, covered, self.inputs.content(spec), upstream)
            named = judge.engine.model if judge.iteration == 0 else judge.identity
            asked = self.inputs.judge(judge.engine, named, prompt)
            below = f"{judge.prompt}/{name}" if judge.prompt else name
            judge_sets = _evaluation(judge, evaluation.sets_of(self.settings), asked)
            enter = (phase or self.first).enter
            group = f"{judge.stage} {judge.iteration} {judge.prompt}"
            member = Member(group, name, _entered(judge_sets, enter))
            alone = functools.partial(_alone, judge_sets, name)
            self._add(parts_of(judge.stage)[1], judge.iteration, wanted, alone, below, phase=phase, member=member)


def _entering(enter: Callable[[Context], Context], work: Callable[[Context], Made]) -> Callable[[Context], Made]:
    return lambda context: work(enter(context))


def _evaluation(examinee: Examinee, specs: Mapping[str, str], judge: Judge) -> Together:
    def run(context: Context, names: Sequence[str]) -> Callable[[], list[StageResult]]:
        folder = context.folder.stage_dir(parts_of(examinee.stage)[1], examinee.iteration)
        if examinee.prompt:
            folder = context.folder.join(folder, examinee.prompt)
        sets = [evaluation.NamedSet(name, specs[name], context.folder.join(folder, name)) for name in names]
        return evaluation.ask(context, examinee.iteration, sets, judge, examinee.told, examinee.before)

    return run


def _entered(judge_sets: Together, enter: Callable[[Context], Context]) -> Together:
    return lambda context, names: judge_sets(enter(context), names)


def _alone(judge_sets: Together, name: str, context: Context) -> StageResult:
    return judge_sets(context, [name])()[0]


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
    return made, judgments.with_numbers(context, judged, iteration, judge)


def steps_of(settings: IterateSettings, folder: RunFolder, inputs: Inputs | None = None) -> list[Step]:
    """All steps of a run, in order. `inputs` are those that the steps will be given."""
    return Planner(settings, folder, inputs or Inputs(settings)).plan()
