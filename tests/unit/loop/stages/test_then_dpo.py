"""SFT, then DPO, in one iteration: on whose judgments, from which weights, in which folders; and a kill in each stage.

Judging is scripted; in the trainer's place stands a function that notes what it was given and leaves a folder. What
real training makes of it is shown by tests/integration/test_then_dpo.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from closed import closed_units
from loop_runs import scripted
from toy_tokenizers import PLAIN, make

from ray_app.base.schema import PAIRS, TRAIN, unit_id
from ray_app.engine.actor import EngineActor
from ray_app.engine.base import Work, alone
from ray_app.engine.manager import PoolManager
from ray_app.errors import InputError
from ray_app.findings.lineage import told, trace
from ray_app.findings.run_tables import RunTables
from ray_app.generation.runner import Job, Runner, StageResult
from ray_app.judging import gold_set
from ray_app.loop.card_files import write_cards
from ray_app.loop.checks import check_interrupted, check_training
from ray_app.loop.config import IterateSettings
from ray_app.loop.run import record_of
from ray_app.loop.run_record import describe
from ray_app.loop.run_table import iteration_rows
from ray_app.loop.stages import train_set, training
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.loop.step import Step, run_step
from ray_app.loop.steps import judge_engine, steps_of
from ray_app.run import metrics_log
from ray_app.run.folder import RunFolder, commit, read_record, write_run
from ray_app.run.resume import pending
from ray_app.run.shards import ShardWriter, row_counts
from ray_app.run.storage import list_files, read_parquet
from ray_app.train.candidates import Candidate
from ray_app.train.trainer import TrainResult

Settings = Callable[..., IterateSettings]
SAMPLES = 4
THEN_DPO: dict[str, Any] = {
    "iterations": 2,
    "judging": {"samples": SAMPLES},
    "then_dpo": {},
    "train": {"lr": 1e-4, "workers": 3, "epochs": 1, "sequence_length": 4096},
}


class KilledError(Exception):
    """As a kill leaves a run: nothing behind it happens."""


class Rows(list[dict[str, Any]]):
    """Rows in memory, as far as stages ask Ray's datasets."""

    def flat_map(self, function: Any, **_: Any) -> Rows:
        return Rows(made for row in self for made in function(row))


class InProcess(Runner):
    """Runs programs in this process, two units a shard, and goes on from closed shards; no Ray."""

    def __init__(self, dies_in: str = "") -> None:
        super().__init__(PoolManager(run_id="test", may_grow=False))
        self.dies_in = dies_in
        self.resumed: dict[str, int] = {}

    def dataset(self, directory: str) -> Any:
        return Rows(row for file in list_files(directory, "shard-*.parquet") for row in read_parquet(file).to_pylist())

    def run(self, job: Job) -> StageResult:
        done = closed_units(job.directory, job.key)
        self.resumed[job.directory] = len(done)
        left = [row for row in job.source if unit_id(row, job.key) not in done]
        actor = EngineActor(job.engine, job.role)
        work = Work(job.program, job.stage, job.iteration, job.engine.model)
        dies = bool(self.dies_in) and job.directory.endswith(self.dies_in)
        for result in asyncio.run(actor.run([work], alone(left[: len(left) // 2] if dies else left))):
            with ShardWriter(job.directory, job.schema) as writer:
                writer.add(result.rows)
                writer.quarantine(result.quarantine)
        if dies:
            raise KilledError
        return StageResult(job.total, *row_counts(job.directory))


@dataclass
class Trainer:
    """Stands for `fit`: the checkpoint it leaves holds what it was given."""

    fits: list[dict[str, Any]] = field(default_factory=list)
    dies_in: str = ""

    def __call__(self, train: Any, **given: Any) -> TrainResult:
        folder = Path(given["checkpoint_dir"])
        state = Path(given["state_dir"])
        state.mkdir(parents=True, exist_ok=True)
        if self.dies_in and str(state).endswith(self.dies_in):
            (state / "half").write_text("a checkpoint of the first steps")
            raise KilledError
        self.fits.append({**given, "train": train, "went_on": (state / "half").exists()})
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"from": given["seed_model"], "recipe": train.recipe}))
        return TrainResult(4, 2, 1.0, 100, 1.0, [2.0, 1.0], [], [Candidate(2, 1.0, 100, 1.0, str(folder))], 2)


@pytest.fixture(autouse=True)
def set_by_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets that are judged together are one stream of Ray Data; here there is no Ray."""
    monkeypatch.setattr(gold_set, "run_together", lambda runner, jobs: [runner.run(job) for job in jobs])


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    found = Trainer()
    monkeypatch.setattr(training, "fit", found)
    return found


@pytest.fixture
def seed(tmp_path: Path) -> str:
    """A seed's tokenizer; judges are right in most of their judgments, each checkpoint's in other ones."""
    folder = tmp_path / "seed"
    make(PLAIN).save_pretrained(folder)
    return str(folder)


def begun(made: IterateSettings) -> None:
    """Instructions and pairs are made and committed."""
    folder, inputs = RunFolder(made.run_uri), Inputs(made)
    steps = steps_of(made, folder, inputs)
    empty = {name: None for name in PAIRS.names}
    with ShardWriter(folder.stage_dir("pairs"), PAIRS) as writer:
        for n in range(6):
            texts = {"instruction": f"Question {n}?", "chosen": f"GOOD {n}", "rejected": f"poor {n}"}
            writer.add([{**empty, "pair_id": f"{n:016x}", "instruction_id": f"i{n}", "split": TRAIN, **texts}])
    for step in steps[:2]:
        commit(step.directory, record_of(step, StageResult(6, 6), "now"))


def go_on(made: IterateSettings, runner: InProcess) -> list[str]:
    """What `run_steps` does: what is left, in order, each committed; returns its names."""
    folder, inputs = RunFolder(made.run_uri), Inputs(made)
    steps = steps_of(made, folder, inputs)
    todo = [steps[i] for i in pending([(str(s), read_record(s.directory), s.fingerprint) for s in steps])]
    check_interrupted(todo)
    write_run(folder.uri, describe(made, steps))
    context = Context(made, folder, runner, inputs)
    done = []
    for step in todo:
        ended = run_step(step, todo, context)
        for made_now, result in zip(ended.steps, ended.results(), strict=True):
            commit(made_now.directory, record_of(made_now, result, "now"))
            done.append(str(made_now))
    metrics_log.rebuild(folder.uri, [step.directory for step in steps])
    write_cards(made, folder, range(1, made.iterations + 1))
    return done


@pytest.fixture
def made(settings: Settings, seed: str) -> IterateSettings:
    given = settings(**THEN_DPO, judge=scripted(seed, p=[0.7], unparsed=0.1))
    begun(given)
    return given


def table(run: IterateSettings, directory: str, prefix: str = "shard") -> list[dict[str, Any]]:
    files = list_files(f"{run.run_uri}/{directory}", f"{prefix}-*.parquet")
    return [row for file in files for row in read_parquet(file).to_pylist()]


OF_SFT = ["judgments", "train set", "training", "evaluation validation"]
OF_DPO = [f"dpo {name}" for name in OF_SFT]


def test_two_trainings_an_iteration_each_on_judgments_and_in_folders_of_its_own(
    made: IterateSettings, trainer: Trainer, seed: str
) -> None:
    order = go_on(made, InProcess())
    assert order[1:] == [f"iteration {i}: {name}" for i in (1, 2) for name in [*OF_SFT, *OF_DPO]]
    run = Path(made.run_uri)
    judges = {
        place: {row["judge"] for row in table(made, f"{place}/judgments")}
        for place in ("iter_01", "iter_01/dpo", "iter_02", "iter_02/dpo")
    }
    assert judges == {
        "iter_01": {seed},
        "iter_01/dpo": {"iter_01"},
        "iter_02": {"iter_01/dpo"},
        "iter_02/dpo": {"iter_02"},
    }
    starts = [(fit["seed_model"], fit["train"].recipe, Path(fit["checkpoint_dir"])) for fit in trainer.fits]
    assert starts == [
        (seed, "sft", run / "iter_01/checkpoint"),
        (str(run / "iter_01/checkpoint"), "dpo", run / "iter_01/dpo/checkpoint"),
        (seed, "sft", run / "iter_02/checkpoint"),
        (str(run / "iter_02/checkpoint"), "dpo", run / "iter_02/dpo/checkpoint"),
    ]
    digests = [read_record(str(run / place)).fingerprint.digest for place in ("iter_01/training", "iter_02/training")]  # type: ignore[union-attr]
    assert [fit["origin"] for fit in trainer.fits] == ["", digests[0], "", digests[1]]
    assert all(str(run / "iter_01/dpo/train_set") in file for file in trainer.fits[1]["train_files"])
    assert judge_engine(made, RunFolder(made.run_uri), 2).model == str(run / "iter_02/dpo/checkpoint")
    assert json.loads((run / "iter_02/dpo/checkpoint/judge.json").read_text())["iteration"] == 2


def test_the_sft_checkpoint_draws_all_its_judgments_anew(made: IterateSettings, trainer: Trainer) -> None:
    go_on(made, InProcess())
    first, second = table(made, "iter_01/judgments"), table(made, "iter_01/dpo/judgments")
    assert len(second) == 12 * SAMPLES > len(first), "all of them, though SFT's stop at the first right one"
    seeds = [{row["seed"] for row in rows} for rows in (first, second)]
    assert not seeds[0] & seeds[1]
    judged = {(row["pair_id"], row["order"], row["sample"]): row for row in second}
    rows = table(made, "iter_01/dpo/train_set")
    assert rows
    for row in rows:
        unit = row["pair_id"], row["order"]
        assert judged[*unit, row["sample"]]["correct"]
        assert row["chosen"][0]["content"] == judged[*unit, row["sample"]]["text"]
        wrong = [r["text"] for key, r in judged.items() if key[:2] == unit and not r["correct"]]
        assert row["rejected"][0]["content"] in wrong
    assert len({(row["pair_id"], row["order"], row["sample"]) for row in rows}) == len(rows)
    assert len(rows) > len({(row["pair_id"], row["order"]) for row in rows}), "several preferences of a prompt"


def test_table_cards_and_lineage_show_both(made: IterateSettings, trainer: Trainer) -> None:
    go_on(made, InProcess())
    run = Path(made.run_uri)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = {row["iteration"]: row for row in iteration_rows(lines)}
    assert list(rows) == [0, 1, "1dpo", 2, "2dpo"]
    assert all("validation" in row["sets"] for row in rows.values())
    assert rows["1dpo"]["rows"] == len(table(made, "iter_01/dpo/train_set")) != rows[1]["rows"]
    assert {name for name, row in rows.items() if "validation" in row["changes"]} == {1, "1dpo", 2, "2dpo"}
    dpo, sft = (run / f"iter_01/{place}checkpoint/README.md" for place in ("dpo/", ""))
    assert "judge M(1), DPO after SFT" in dpo.read_text()
    assert "| started from | iter_01/checkpoint |" in dpo.read_text()
    assert "DPO on right and wrong judgments" in dpo.read_text()
    assert "started from" not in sft.read_text()
    assert "supervised fine-tuning" in sft.read_text()
    assert "`chosen`, `rejected`" in (run / "iter_01/dpo/train_set/README.md").read_text()
    pair = table(made, "iter_01/dpo/train_set")[0]["pair_id"]
    text = told(trace(RunTables(made.run_uri), pair))
    for title in ("training set, iteration 1  ", "training set, iteration 1, dpo", "judgment, iteration 2, dpo: "):
        assert title in text
    assert "checkpoint iter_02/dpo/checkpoint  started_from=iter_02/checkpoint" in text
    vote = table(made, "iter_02/dpo/evaluation/validation")[0]["id"]
    text = told(trace(RunTables(made.run_uri), vote))
    assert "judged by=the SFT checkpoint of iteration 2" in text
    assert "judged by=iteration 1, dpo" in text


def test_dpo_is_compared_with_its_sft_and_the_next_sft_with_it(made: IterateSettings, trainer: Trainer) -> None:
    go_on(made, InProcess())
    told_of = {
        place: json.loads((Path(made.run_uri) / place / "evaluation/validation/summary.json").read_text())
        for place in ("iter_01", "iter_01/dpo", "iter_02", "iter_02/dpo")
    }
    names = ("against_iteration_before", "against_sft")
    assert [[n for n in names if n in told_of[place]] for place in told_of] == [[names[0]], [names[1]]] * 2
    steps = {str(s): s.fingerprint for s in steps_of(made, RunFolder(made.run_uri))}
    assert steps["iteration 2: judgments"].upstream[1] == steps["iteration 1: dpo training"].digest


def files(run: Path) -> dict[str, str]:
    """Content of every table that a run has committed."""
    found = {}
    for file in sorted(run.rglob("*.parquet")):
        found[str(file.relative_to(run).parent)] = ""
    for place in found:
        rows = [row for f in sorted((run / place).glob("*.parquet")) for row in read_parquet(str(f)).to_pylist()]
        found[place] = hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()
    return found


DIES = {
    "iteration 1: dpo judgments": "iter_01/dpo/judgments",
    "iteration 1: dpo train set": "",
    "iteration 1: dpo training": "iter_01/dpo/train_state",
    "iteration 1: dpo evaluation validation": "iter_01/dpo/evaluation/validation",
}


OFTEN = ("iteration 1: dpo judgments", "iteration 1: dpo training")  # one that goes on by rows, one by a state


@pytest.mark.parametrize(
    "stage", [pytest.param(name, marks=[pytest.mark.matrix] * (name not in OFTEN)) for name in DIES]
)
def test_a_run_killed_in_a_stage_of_dpo_goes_on_there(
    settings: Settings, seed: str, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    given = {**THEN_DPO, "iterations": 1, "judge": scripted(seed, p=[0.7], unparsed=0.1)}
    whole, run = settings(**given, name="whole"), settings(**given, name="killed")
    for made in (whole, run):
        begun(made)
    go_on(whole, InProcess())
    trainer.fits.clear()
    trainer.dies_in, runner = DIES[stage], InProcess(DIES[stage])
    with monkeypatch.context() as dying:
        if stage.endswith("train set"):
            numbers = train_set.numbers  # asked for when the rows are written
            dying.setattr(train_set, "numbers", lambda made, n: killed() if made.selected[0][1:] else numbers(made, n))
        with pytest.raises(KilledError):
            go_on(run, runner)
    before = {file: file.stat().st_mtime_ns for file in Path(run.run_uri).rglob("stage.json")}
    trainer.dies_in, again = "", InProcess()
    rest = go_on(run, again)
    assert rest == [f"iteration 1: {name}" for name in OF_DPO][list(DIES).index(stage) :]
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert files(Path(run.run_uri)) == files(Path(whole.run_uri))
    if "judgments" in stage or "evaluation" in stage:
        assert again.resumed[f"{run.run_uri}/{DIES[stage]}"] > 0, "closed shards are not asked for again"
    assert trainer.fits[-1]["went_on"] is (stage == "iteration 1: dpo training")


def killed() -> Any:
    raise KilledError


def stages(made: IterateSettings) -> dict[str, Step]:
    return {str(step): step for step in steps_of(made, RunFolder(made.run_uri))}


def test_sft_alone_is_the_same_work_and_may_be_followed_by_dpo_later(settings: Settings) -> None:
    alone, both = (stages(settings(**{**THEN_DPO, "then_dpo": then, "iterations": 1})) for then in (None, {}))
    assert {name: step.fingerprint for name, step in alone.items()}.items() <= {
        name: step.fingerprint for name, step in both.items()
    }.items()
    assert set(both) - set(alone) == {f"iteration 1: {name}" for name in OF_DPO}
    assert [both[f"iteration 1: {name}"].role for name in OF_DPO] == ["judge", None, None, "judge"]
    assert [both[f"iteration 1: {name}"].resumes for name in OF_DPO] == [True, False, False, True]


@pytest.mark.parametrize(
    ("then", "stage", "setting"),
    [
        ({"judging": {"samples": 9}}, "dpo judgments", "judging.samples"),
        ({"train": {"dpo": {"pairs_per_prompt": 2}}}, "dpo train set", "train.dpo.pairs_per_prompt"),
        ({"train": {"lr": 1e-7, "lr_min": 1e-7}}, "dpo training", "train.lr"),
    ],
)
def test_a_setting_of_dpo_makes_its_stage_other_work_and_no_sft(
    settings: Settings, then: dict[str, Any], stage: str, setting: str
) -> None:
    was, now = (stages(settings(**{**THEN_DPO, "then_dpo": given, "iterations": 1})) for given in ({}, then))
    differ = [name for name in was if was[name].fingerprint != now[name].fingerprint]
    assert differ[0] == f"iteration 1: {stage}"
    assert all("dpo" in name for name in differ)
    flat = [steps[differ[0]].fingerprint.settings[setting] for steps in (was, now)]
    assert flat[0] != flat[1]


def test_what_is_inherited_and_what_is_the_releases(settings: Settings) -> None:
    made = settings(**THEN_DPO)
    assert made.then_dpo is not None
    train, judging = made.then_dpo.train, made.then_dpo.judging
    assert (train.recipe, train.lr, train.lr_min, train.sequence_length, train.batch_rows) == (
        "dpo",
        5.5e-8,
        5.5e-8,
        2048,
        32,
    )
    assert (train.warmup_steps, train.epochs) == (0, 2)
    assert (train.dpo.pairs_per_prompt, train.dpo.unparsed_as_wrong, train.dpo.nll_mean) == (6, True, "pairs")
    assert (train.workers, train.use_gpu, train.tokens_per_batch) == (3, False, 1024), "of train"
    assert (judging.sampling, judging.samples) == ("all", SAMPLES)
    own = settings(**{**THEN_DPO, "then_dpo": {"train": {"lr": 1e-6, "workers": 2, "dpo": {"beta": 0.2}}}}).then_dpo
    assert own is not None
    assert (own.train.lr, own.train.workers, own.train.dpo.beta, own.train.dpo.pairs_per_prompt) == (1e-6, 2, 0.2, 6)
    assert made.train.recipe == "sft"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"train": {"recipe": "dpo"}}, "then_dpo follows train.recipe sft, not dpo"),
        ({"then_dpo": {"train": {"recipe": "sft"}}}, "leave recipe and start as they are"),
        ({"then_dpo": {"train": {"start": "previous"}}}, "leave recipe and start as they are"),
        (
            {"then_dpo": {"judging": {"stop_after_verdict": False}}},
            r"then_dpo\.judging\.stop_after_verdict is that of judging",
        ),
        ({"then_dpo": {"train": {"dtype": "float32"}}}, r"then_dpo\.train\.dtype is that of train"),
        ({"judging": {"mode": "pointwise"}}, "then_dpo needs judging.mode pairwise"),
        (
            {"then_dpo": {"judging": {"must_name": True}}},
            r"then_dpo\.judging\.must_name looks at .* set then_dpo\.train\.dpo\.pairs_per_prompt 1",
        ),
        (
            {
                "train": {"recipe": "dpo", "dpo": {"pairs_per_prompt": 2}},
                "judging": {"must_name": True},
                "then_dpo": None,
            },
            r"judging\.must_name looks at .* set train\.dpo\.pairs_per_prompt 1",
        ),
        ({"then_dpo": {"judging": {"must_agree": True}}}, r"then_dpo\.judging\.must_agree looks at .*must_agree false"),
        ({"then_dpo": {"train": {"lrr": 1}}}, r"then_dpo\.train\.lrr"),
    ],
)
def test_what_cannot_be_is_named(settings: Settings, more: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        settings(**{**THEN_DPO, **more})


def test_checks_name_the_section_of_a_training(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_app.train import encoding
    from ray_app.train.check import ModelFacts

    monkeypatch.setattr(encoding, "model_facts", lambda *_: ModelFacts(8192, 2, 4))
    fits = {"sequence_length": 512}
    with pytest.raises(InputError, match=r"^then_dpo\.train\.tokens_per_batch: 1024 holds no row of 2 × 2048 tokens"):
        check_training(settings(**{**THEN_DPO, "train": fits}))
    check_training(settings(**{**THEN_DPO, "train": fits, "then_dpo": {"train": fits}}))


def test_judgments_until_correct_starve_dpo_and_that_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ray_app.train import encoding
    from ray_app.train.check import ModelFacts

    monkeypatch.setattr(encoding, "model_facts", lambda *_: ModelFacts(8192, 2, 4))
    fits = {**THEN_DPO["train"], "tokens_per_batch": 4096}
    check_training(settings(**{**THEN_DPO, "train": fits}))
    assert "until_correct" not in caplog.text
    check_training(settings(**{**THEN_DPO, "train": fits, "then_dpo": {"judging": {"sampling": "until_correct"}}}))
    assert "DPO with then_dpo.judging.sampling until_correct" in caplog.text


def test_judgments_until_correct_starve_a_training_that_is_dpo_itself(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ray_app.train import encoding
    from ray_app.train.check import ModelFacts

    monkeypatch.setattr(encoding, "model_facts", lambda *_: ModelFacts(8192, 2, 4))
    given = {**THEN_DPO, "then_dpo": None}

    def checked(recipe: str, sampling: str) -> str:
        caplog.clear()
        train = {**THEN_DPO["train"], "tokens_per_batch": 8192, "recipe": recipe}
        check_training(settings(**{**given, "train": train, "judging": {"samples": SAMPLES, "sampling": sampling}}))
        return caplog.text

    assert "DPO with judging.sampling until_correct" in checked("dpo", "until_correct")
    assert "until_correct" not in checked("dpo", "all")
    assert "until_correct" not in checked("sft", "until_correct")
