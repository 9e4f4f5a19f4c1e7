"""Cards: their front matter is what the Hub and `datasets` read, they name what was used, and no path of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ray_app.base.schema import TRAIN_SFT
from ray_app.loop.card_files import write_cards
from ray_app.loop.cards import dataset_card, model_card, public
from ray_app.loop.config import IterateSettings
from ray_app.run.fingerprint import fingerprint
from ray_app.run.folder import RunFolder, StageRecord, commit


def settings(folder: str = "runs", **more: Any) -> IterateSettings:
    engine = {"model": "meta-llama/Llama-3.1-8B-Instruct"}
    given = {"name": "r", "generator": engine, "judge": engine, "instructions": {"source": "/data/team/prompts.jsonl"}}
    return IterateSettings(runs=folder, **{**given, **more})


def record(stage: str, **extra: Any) -> StageRecord:
    return StageRecord(
        stage=stage, iteration=2, fingerprint=fingerprint(stage, {"a": 1}, {}, []), rows_in=10, rows_out=8,
        quarantined={"too_long": 2}, prompt_tokens=0, completion_tokens=0, seconds=1.0,
        finished="2026-01-01T00:00:00+00:00", extra=extra,
    )  # fmt: skip


TRAINING = {
    "steps": 30,
    "first_loss": 1.25,
    "last_loss": 0.5,
    "selected_step": 20,
    "candidates": [
        {"step": 20, "accuracy": 0.75, "first_position_rate": 0.5, "n": 40},
        {"step": 30, "accuracy": 0.7, "first_position_rate": 0.625, "n": 40},
    ],
}
EVALUATION = {
    "set": "rewardbench",
    "headline": {"accuracy": {"value": 0.8, "n": 99, "low": 0.7, "high": 0.9}, "unparsed_rate": None},
}


def front_matter(card: str) -> dict[str, Any]:
    empty, front, _ = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front)


def test_a_model_card_says_what_was_trained_on_what_and_how_good_it_is() -> None:
    train_set = record("train_set")
    card = model_card(settings(), 2, record("training", **TRAINING), train_set, [record("evaluation", **EVALUATION)])
    assert front_matter(card)["base_model"] == "meta-llama/Llama-3.1-8B-Instruct"
    for line in (
        f"| training set | {train_set.fingerprint.digest} |",
        "| rows | 8 |",
        "| rows too long or otherwise left out | 2 |",
        "| learning rate | 1e-06 to 2e-07, cosine, 100 warm-up steps |",
        "| 20 (this one) | 75.0 % | 50.0 % | 40 |",
        "| 30 | 70.0 % | 62.5 % | 40 |",
        "| rewardbench | accuracy, both orders | 80.0 % | 70.0 to 90.0 % | 99 |",
    ):
        assert line in card.splitlines()
    assert "## License" in card


def test_a_model_card_says_what_training_began_with() -> None:
    card = model_card(settings(), 2, record("training", **TRAINING, started_from="iter_01/checkpoint"), None)
    assert "| started from | iter_01/checkpoint |" in card
    assert "started from" not in model_card(settings(), 2, record("training", **TRAINING), None), "the seed goes unsaid"


def test_a_model_card_says_in_which_format_its_weights_are() -> None:
    """What the run decided; the setting alone may say auto."""
    decided = model_card(settings(), 2, record("training", **TRAINING, dtype="float32"), None)
    assert "| format of weights and checkpoint | float32 |" in decided
    older = model_card(settings(train={"bf16": True}), 2, record("training", **TRAINING), None)
    assert "| format of weights and checkpoint | bfloat16 |" in older


def test_what_was_not_measured_is_not_there() -> None:
    card = model_card(settings(), 2, record("training", steps=3, candidates=[]), None)
    assert "## Selection" not in card
    assert "## Scores" not in card
    assert "training set |" not in card


@pytest.mark.parametrize("base", ["/models/private/base", "./base", "../team/base"])
def test_a_local_base_model_is_named_without_its_path(base: str) -> None:
    changed = settings(judge={"model": base}, generator={"model": base})
    card = model_card(changed, 1, record("training"), None)
    assert "base_model" not in front_matter(card)
    assert base not in card
    assert "| base model | base |" in card.splitlines()


def test_public_names() -> None:
    assert public("hf:allenai/WildChat-1M") == "allenai/WildChat-1M"
    assert public("s3://bucket/team/prompts.jsonl") == "prompts.jsonl"
    assert public("owner/name") == "owner/name"


def test_a_dataset_card_names_its_source_and_models_without_paths() -> None:
    card = dataset_card(settings(), 2, record("train_set", keep_rate=0.5, kept_by_letter={"A": 4, "B": 4}))
    assert "/data/team" not in card
    assert "prompts.jsonl" in card
    assert "| keep rate | 50.0 % |" in card.splitlines()
    assert "| kept by letter | A 4, B 4 |" in card.splitlines()
    assert "`completion`" in card
    dpo = dataset_card(settings(train={"recipe": "dpo"}), 2, record("train_set"))
    assert "`rejected`" in dpo


def training_set(folder: Path) -> list[dict[str, Any]]:
    """Two shards beside what else lies in a training set's folder."""
    rows = [
        {
            "pair_id": f"p{i}", "order": "chosen_first", "sample": 0, "iteration": 1,
            "prompt": [{"role": "user", "content": f"question {i}"}],
            "completion": [{"role": "assistant", "content": "[[A]]"}],
            "completion_ids": [1, 2],
        }
        for i in range(3)
    ]  # fmt: skip
    folder.mkdir(parents=True)
    for number, part in enumerate((rows[:2], rows[2:])):
        pq.write_table(pa.Table.from_pylist(part, schema=TRAIN_SFT), folder / f"shard-{number:05d}.parquet")
    pq.write_table(pa.table({"id": ["x"], "reason": ["too_long"]}), folder / "quarantine-00000.parquet")
    commit(str(folder), record("train_set"))
    return rows


def test_load_dataset_takes_the_folder_as_it_is(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "r" / "iter_01" / "train_set"
    rows = training_set(folder)
    run = settings(str(tmp_path))
    write_cards(run, RunFolder(run.run_uri), [1])
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == rows


def test_cards_follow_the_commits_and_are_written_once(tmp_path: Path) -> None:
    run = settings(str(tmp_path))
    folder = RunFolder(run.run_uri)
    iteration = tmp_path / "r" / "iter_01"
    training_set(iteration / "train_set")
    card = iteration / "checkpoint" / "README.md"
    commit(str(iteration / "training"), record("training", **TRAINING))
    write_cards(run, folder, [1])
    assert not card.parent.exists()  # its user moved it away
    card.parent.mkdir()
    (card.parent / "config.json").write_text("{}")
    write_cards(run, folder, [1, 2])
    assert "## Scores" not in card.read_text()
    commit(str(iteration / "evaluation" / "rewardbench"), record("evaluation", **EVALUATION))
    write_cards(run, folder, [1])
    assert "| rewardbench |" in card.read_text()
    before = card.stat().st_mtime_ns
    write_cards(run, folder, [1])
    assert card.stat().st_mtime_ns == before


def test_a_dataset_card_says_where_its_pairs_come_from() -> None:
    def card(**part: Any) -> str:
        made = settings(generator={"model": "/models/writer"}, pairs=part)
        return dataset_card(made, 2, record("train_set"))

    assert "strategy modified_instruction, by writer" in card()
    mixed = card(source=["/data/team/human.jsonl"])
    assert "strategy modified_instruction, by writer; pairs made elsewhere (human.jsonl)" in mixed
    taken = card(from_run="/runs/other", source=["human.jsonl"])
    assert "those of the run other; pairs made elsewhere (human.jsonl)" in taken
    assert "writer" not in taken, "nobody asked it"
    assert "/data" not in mixed + taken


def test_a_set_that_the_checkpoint_was_selected_on_is_marked_in_its_card() -> None:
    figure = {"value": 0.8, "n": 99, "low": 0.7, "high": 0.9}
    sets = [record("evaluation", set=name, headline={"accuracy": figure}) for name in ("validation", "rewardbench")]
    card = model_card(settings(), 2, record("training", **TRAINING), None, sets)
    assert "| validation (selected on) | accuracy, both orders | 80.0 % |" in card
    assert "| rewardbench | accuracy, both orders |" in card
    assert "its figures flatter" in card
    one = model_card(settings(), 2, record("training", **{**TRAINING, "candidates": []}), None, sets)
    assert "selected on" not in one
    assert "flatter" not in one


def test_a_card_has_every_control_of_a_set() -> None:
    """What could be right without judging, and what is said besides: a reader of the card alone has to see both."""
    figure = {"value": 0.8, "n": 99, "low": 0.7, "high": 0.9}
    controls = {
        "position_consistent_accuracy": "right in both orders",
        "unparsed_rate": "unparsed",
        "first_position_rate": "verdicts for the response shown first",
        "length_baseline": "always the longer response",
        "overlap_baseline": "more of the instruction's words",
        "mirrored_accuracy": "and of the mirror",
        "instruction_sensitivity": "winner changes with the instruction",
        "accuracy_least_similar": "the least similar third",
        "accuracy_most_similar": "the most similar third",
    }
    said = {
        "explanation_words_median": 9,
        "bare_verdicts": 0.25,
        "distinct_explanations": 0.5,
        "telling_explanations": 0.625,
        "contradicting_explanations": None,
    }
    evaluated = record("evaluation", set="heldout", headline=dict.fromkeys(controls, figure), explanations=said)
    card = model_card(settings(), 2, record("training", **TRAINING), None, [evaluated])
    for told in controls.values():
        lines = [line for line in card.splitlines() if line.startswith("| heldout |") and told in line]
        assert lines, told
        assert all(line.endswith("| 80.0 % | 70.0 to 90.0 % | 99 |") for line in lines)
    for told, value in (
        ("words besides the verdict (median)", "9"),
        ("a bare verdict", "25.0 %"),
        ("distinct", "50.0 %"),
    ):
        assert any(told in line and f"| {value} |" in line for line in card.splitlines())
    assert "names the other" not in card, "none calls a response better"


def test_cards_claim_no_more_than_the_run_knows_of_its_labels() -> None:
    """Pairs made elsewhere may be labelled by people."""
    claim = "without human preference labels"
    given = settings(pairs={"source": ["/data/human.jsonl"]})
    taken = settings(pairs={"strategy": "given", "source": ["/data/human.jsonl"]})
    for card in (model_card(settings(), 2, record("training"), None), dataset_card(settings(), 2, record("train_set"))):
        assert claim in card
    for other in (given, taken):
        assert claim not in model_card(other, 2, record("training"), None)
        assert claim not in dataset_card(other, 2, record("train_set"))
    assert "follows from how it was made." in dataset_card(settings(), 2, record("train_set"))
    assert "was taken from their source." in dataset_card(taken, 2, record("train_set"))
