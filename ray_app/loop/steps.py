"""The order of the loop, as data: one step a stage and iteration, each with its folder, fingerprint and work.

Fingerprints follow from settings and input files alone, so what is done and what is left is known before Ray,
a model or a GPU is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
from ray_app.loop.step import Feed, Step
from ray_app.run.fingerprint import Fingerprint, fingerprint
from ray_app.run.folder import RunFolder


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
        self._baselines(made)
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
    ) -> Fingerprint:
        directory = self.folder.stage_dir(stage, iteration)
        if name:
            directory = self.folder.join(directory, name)
        label = f"{stage.replace('_', ' ')} {name}".strip()
        self.steps.append(Step(stage, iteration, directory, wanted, run, label, feeds))
        return wanted

    def _instructions(self) -> Fingerprint:
        settings = self.settings
        wanted = fingerprint(
            instructions.STAGE, instructions.settings_of(settings, self.inputs), instructions.inputs_of(settings), []
        )
        return self._add(instructions.STAGE, None, wanted, instructions.run)

    def _pairs(self, upstream: Fingerprint, iteration: int | None) -> Fingerprint:
        generator = {"generator": model_identity(self.settings.generator.model)}
        wanted = fingerprint(pairs.STAGE, pairs.settings_of(self.settings, self.inputs), generator, [upstream.digest])
        feeds = self._judging(iteration or 1) if self.settings.iterations else None
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
        start = self._start(iteration, judge)
        covered = training.settings_of(settings, self.inputs, start)
        upstream = [chosen.digest, *([start.origin] if start.origin else [])]
        trained = fingerprint(training.STAGE, covered, inputs, upstream)
        digests = trained.digest, chosen.digest
        return self._add(training.STAGE, iteration, trained, lambda c: training.run(c, iteration, *digests, start))

    def _start(self, iteration: int, judge: list[Fingerprint]) -> training.Start:
        """What the training of `iteration` begins with; `judge` is the training that made M(iteration - 1)."""
        if self.settings.train.start == "previous" and judge:
            folder, before = self.folder, iteration - 1
            return training.Start(folder.checkpoint(before), None, judge[0].digest, f"iter_{before:02d}/checkpoint")
        return training.Start(self.settings.judge.model, self.settings.judge.revision)

    def _evaluations(self, iteration: int, made: Fingerprint, identity: str, judge: list[Fingerprint]) -> None:
        engine = judge_engine(self.settings, self.folder, iteration)
        self._evaluate(made, Examinee(EVALUATION, iteration, engine, identity, tuple(judge)))

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

    def _evaluate(self, made: Fingerprint, judge: Examinee) -> None:
        for name, spec in evaluation.sets_of(self.settings).items():
            if name == evaluation.HELDOUT_SET and judge.iteration == 0 and self.settings.pairs.refresh != "never":
                continue  # there are no pairs yet
            if judge.prompt and spec and shows_four(spec):
                continue  # best-of rows have prompts of their own: the seed's figure is this one too
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
            self._add(judge.stage, judge.iteration, wanted, _evaluation(judge, below, name, spec, asked), below)


def _evaluation(examinee: Examinee, below: str, name: str, spec: str, judge: Judge) -> Callable[[Context], StageResult]:
    def run(context: Context) -> StageResult:
        directory = context.folder.join(context.folder.stage_dir(examinee.stage, examinee.iteration), below)
        return evaluation.run(context, directory, examinee.iteration, name, spec, judge, examinee.told)

    return run


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
    return made, judgments.with_numbers(context, judged, iteration)


def steps_of(settings: IterateSettings, folder: RunFolder, inputs: Inputs | None = None) -> list[Step]:
    """All steps of a run, in order. `inputs` are those that the steps will be given."""
    return Planner(settings, folder, inputs or Inputs(settings)).plan()
