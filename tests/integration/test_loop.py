"""The whole loop on real parts, once and small: vLLM generates and judges, DeepSpeed trains, vLLM judges again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from loop_runs import DEMO, SMALL_TRAINING, Loop

pytestmark = pytest.mark.timeout(1200)

# A third of the instructions give a whole pair, and the seed judge is right in about 5 % of its samples: of 16 samples
# for each of about 24 (pair, order), some ten are kept, of either letter.
SAMPLES = 16


@pytest.fixture(scope="module")
def finished(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """One iteration over 36 instructions, run to its end."""
    engine = {"kind": "vllm", "model": model, "device": "cpu", "max_model_len": 1024, "max_num_seqs": 32, "script": {}}
    engine["cpu_threads"] = 1  # another test has the other core
    sampling = {"temperature": 0.7, "top_p": 1.0}
    loop = Loop(
        tmp_path_factory.mktemp("loop"),
        {
            "iterations": 1,
            "limit": 36,
            "generator": engine,
            "judge": engine,
            "instructions": {"source": str(DEMO / "instructions.jsonl"), "heldout_fraction": 0.1},
            "pairs": {"sampling": {**sampling, "max_tokens": 128}, "modify_sampling": {**sampling, "max_tokens": 96}},
            "judging": {"samples": SAMPLES, "generation": {**sampling, "max_tokens": 20}},
            "train": {**SMALL_TRAINING, "max_steps": 1},
            "evaluation": {"limit": 4, "generation": {"temperature": 0, "top_p": 1.0, "max_tokens": 24}},
        },
    )
    try:
        loop.succeeds()
        yield loop
    finally:
        loop.stop()


def test_every_stage_is_committed(finished: Loop) -> None:
    lines = [json.loads(line) for line in (finished.run / "metrics.jsonl").read_text().splitlines()]
    assert {(line["stage"], line["iteration"]) for line in lines} == {
        ("instructions", None),
        ("pairs", None),
        ("evaluation", 0),
        ("judgments", 1),
        ("train_set", 1),
        ("training", 1),
        ("evaluation", 1),
    }
    assert json.loads((finished.run / "run.json").read_text())["settings"]["limit"] == 36


def test_the_training_set_is_right_judgments_balanced(finished: Loop) -> None:
    judgments = {(r["pair_id"], r["order"], r["sample"]): r for r in finished.rows("iter_01/judgments")}
    rows = finished.rows("iter_01/train_set")
    letters = []
    for row in rows:
        judgment = judgments[row["pair_id"], row["order"], row["sample"]]
        assert judgment["correct"]
        assert judgment["kept"]
        assert row["completion"] == [{"role": "assistant", "content": judgment["text"]}]
        letters.append(judgment["verdict"])
    assert letters.count("A") == letters.count("B") > 0


def test_the_training_set_loads_in_datasets_and_trl(finished: Loop, model: str) -> None:
    """As SFTTrainer sees it: conversational prompt-completion rows, which its own templating takes."""
    import datasets
    from transformers import AutoTokenizer
    from trl.data_utils import is_conversational, maybe_apply_chat_template

    files = str(finished.run / "iter_01/train_set/shard-*.parquet")
    cache = str(finished.folder / "datasets")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    rows = finished.rows("iter_01/train_set")
    assert loaded.num_rows == len(rows)
    assert loaded[0] == rows[0]
    assert is_conversational(loaded[0])
    tokenizer = AutoTokenizer.from_pretrained(model)
    templated = maybe_apply_chat_template(loaded[0], tokenizer)
    assert templated["completion"].startswith(rows[0]["completion"][0]["content"])
    assert templated["prompt"].endswith("<|im_start|>assistant\n")


def test_the_training_set_is_what_sft_trainer_takes(finished: Loop, model: str) -> None:
    """TRL prepares it with the completion alone in the loss, as our own trainer does."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    files = str(finished.run / "iter_01/train_set/shard-*.parquet")
    cache = str(finished.folder / "datasets")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    config = SFTConfig(
        output_dir=str(finished.folder / "trl"), use_cpu=True, bf16=False, max_length=1024, report_to=[], max_steps=1
    )
    trainer = SFTTrainer(model=model, args=config, train_dataset=loaded)
    batch = next(iter(trainer.get_train_dataloader()))
    trained = batch["input_ids"][0][batch["labels"][0] != -100]
    text = trainer.processing_class.decode(trained, skip_special_tokens=True)
    assert text.strip() in {row["completion"][0]["content"].strip() for row in finished.rows("iter_01/train_set")}


def test_the_checkpoint_loads_in_transformers_and_judged(finished: Loop) -> None:
    """Other weights than the seed's, nothing missing, and vLLM served it for iteration 1's evaluation."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = finished.run / "iter_01/checkpoint"
    trained, info = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    seed = AutoModelForCausalLM.from_pretrained(finished.settings["judge"]["model"])
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), seed.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained(checkpoint).chat_template
    card = json.loads((checkpoint / "judge.json").read_text())
    assert card["iteration"] == 1
    votes = finished.rows("iter_01/evaluation/validation")
    assert len(votes) == 8
    assert min(vote["completion_tokens"] for vote in votes) > 0
    assert {vote["judge"] for vote in votes} == {"iter_01"}


def test_the_metrics_say_how_work_and_weights_were_shared(finished: Loop) -> None:
    lines = [json.loads(line) for line in (finished.run / "metrics.jsonl").read_text().splitlines()]
    extra = {(line["stage"], line["iteration"], line["extra"].get("set")): line["extra"] for line in lines}
    pairs, judgments = extra["pairs", None, None], extra["judgments", 1, None]
    assert pairs["side_by_side"] is judgments["side_by_side"] is True, "one model, one pool"
    assert (pairs["weights"], judgments["weights"]) == ("started", "reused")
    seed, trained = (extra["evaluation", iteration, "validation"] for iteration in (0, 1))
    assert seed["weights"] == "reused"
    # Two workers and an engine of one thread: on two cores the engine ends, so that training has them for itself.
    assert trained["weights"] == ("reloaded" if len(os.sched_getaffinity(0)) >= 3 else "started")
    assert trained["checkpoint_to_first_answer_s"] > trained["weights_seconds"] > 0
    assert extra["evaluation", 1, "heldout"]["weights"] == "reused"
    made = extra["train_set", 1, None]
    assert made["pass_rate_n"] == made["tried"] == sum(group["n"] for group in made["pass_rate_by_category"].values())


def test_the_same_command_again_redoes_nothing(finished: Loop) -> None:
    before = finished.files("**/*")
    again = finished.succeeds()
    # instructions, pairs, judgments, training set, training; validation and held-out pairs in iterations 0 and 1
    assert "9 of 9 stages are done" in again.errors
    assert "started a local Ray" not in again.errors
    after = finished.files("**/*")
    before.pop("metrics.jsonl"), after.pop("metrics.jsonl")
    assert after == before


def test_a_changed_setting_is_refused_by_name(finished: Loop) -> None:
    before = finished.files("**/*")
    refused = finished("--judging.samples", str(SAMPLES + 1))
    assert refused.code == 2
    assert "judging.samples" in refused.one_line
    assert "judgments" in refused.one_line
    assert finished.files("**/*") == before


def test_more_iterations_are_accepted(finished: Loop, model: str, tmp_path: Path) -> None:
    """The plan alone: what is committed stays done, and only iteration 2 is left."""
    from ray_app.command.load_settings import load_settings
    from ray_app.loop.config import IterateSettings
    from ray_app.loop.steps import steps_of
    from ray_app.run.folder import RunFolder, read_record
    from ray_app.run.resume import pending

    settings = load_settings(IterateSettings, ["--config", str(finished.config), "--iterations", "2"])
    steps = steps_of(settings, RunFolder(settings.run_uri))
    left = [steps[i] for i in pending([(str(s), read_record(s.directory), s.fingerprint) for s in steps])]
    assert {step.iteration for step in left} == {2}
    assert [step.stage for step in left][:3] == ["judgments", "train_set", "training"]
