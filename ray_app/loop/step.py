"""One commit of a run: what it is made with, where it lies, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ray_app.generation.runner import StageResult
from ray_app.judging.protocol import STAGE as EVALUATION
from ray_app.loop.stages import evaluation, instructions, judgments, pairs, train_set, training
from ray_app.loop.stages.context import Context
from ray_app.run.fingerprint import Fingerprint
from ray_app.run.folder import begin, parts_of

# Judges the sets that are named; what it returns computes their figures.
Together = Callable[[Context, Sequence[str]], Callable[[], list[StageResult]]]


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
    run: Together


@dataclass(frozen=True)
class Ahead:
    """What a training can begin before its turn."""

    judged: Callable[[Context], None]  # while its rows are judged: workers start
    chosen: Callable[[Context], None]  # while they are chosen: the model is built


@dataclass(frozen=True)
class Ended:
    """Steps whose engines are done with them. `results` gives the numbers of each, ready to be committed; where they
    are `owed` that takes seconds, and may be done while the next step begins, in another thread.
    """

    steps: Sequence[Step]
    results: Callable[[], Sequence[StageResult]]
    owed: bool = False


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
    ahead: Ahead | None = None

    @property
    def kind(self) -> str:
        """What stage it is, in whichever phase."""
        return parts_of(self.stage)[1]

    @property
    def role(self) -> str | None:
        """Whose engines it needs."""
        if self.stage in (judgments.STAGE, evaluation.FIRST_JUDGE):
            return "first_judge" if self.iteration in (0, 1) else "judge"
        if self.stage == pairs.STAGE:
            return "generator" if "generator" in self.fingerprint.inputs else None
        if self.stage == instructions.STAGE and self.resumes:
            return "generator"
        if self.kind == judgments.STAGE:  # of a second training: the checkpoint of the first judges
            return "judge"
        return "judge" if self.kind in (EVALUATION, evaluation.BASELINE) else None

    @property
    def resumes(self) -> bool:
        """Whether an interrupted attempt goes on from its closed shards; other stages clear what it left."""
        if self.stage == instructions.STAGE:
            return bool(self.fingerprint.settings["instructions.classify"])
        return self.kind not in (train_set.STAGE, training.STAGE)

    def __str__(self) -> str:
        return self.label if self.iteration is None else f"iteration {self.iteration}: {self.label}"


def begin_ahead(step: Step, todo: Sequence[Step], context: Context) -> None:
    """What the next training can begin while the engines judge its rows, and once nobody judges any more."""
    ahead = next((other.ahead for other in todo[todo.index(step) :] if other.ahead), None)
    if ahead is None:
        return
    if step.kind == judgments.STAGE or fed_by(step, todo) is not None:
        ahead.judged(context)
    elif step.kind == train_set.STAGE:
        ahead.chosen(context)


def fed_by(step: Step, todo: Sequence[Step]) -> Step | None:
    """The step that takes the rows of `step` while it makes them, where it is left to do."""
    return next((other for other in todo if step.feeds and other.directory == step.feeds.directory), None)


def run_step(step: Step, todo: Sequence[Step], context: Context) -> Ended:
    """Do the work of `step`, of those it is done together with, and of the step it feeds where both are left and can
    run at the same time.
    """
    feed, fed = step.feeds, fed_by(step, todo)
    begin(step.directory, step.fingerprint)
    if feed and fed:
        begin(fed.directory, fed.fingerprint)
        if both := feed.run(context):
            return Ended((step, fed), lambda: both)
    if group := step.member:
        members = [other for other in todo if other.member and other.member.group == group.group]
        for other in members:
            begin(other.directory, other.fingerprint)
        names = [other.member.name for other in members if other.member]
        return Ended(members, group.run(context, names), owed=True)
    result = step.run(context)
    return Ended((step,), lambda: [result])
