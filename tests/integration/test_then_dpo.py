"""SFT, then DPO, in one iteration, with real training: DPO begins with the SFT checkpoint, and refers to it.

Judging is scripted; the model is two layers deep. The driver is killed in the training of DPO, and goes on there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from loop_runs import SMALL_TRAINING, Loop, scripted

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
LENGTH = 1024
DPO = {"lr": 1e-5, "lr_min": 1e-6, "sequence_length": LENGTH, "tokens_per_batch": 2 * LENGTH, "batch_rows": 3}


@pytest.fixture(scope="module")
def finished(shallow: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """One iteration, killed while DPO trains; three pairs a step on two workers."""
    loop = Loop(
        tmp_path_factory.mktemp("then_dpo"),
        {
            "iterations": 1,
            "limit": 8,
            "judge": scripted(shallow, p=[0.6], unparsed=0.1),
            "judging": {"samples": 4},
            "train": {**SMALL_TRAINING, "dtype": "float32", "max_steps": 2, "batch_rows": 4},
            "then_dpo": {"train": {**DPO, "max_steps": 2}},
            "evaluation": {"limit": 4},
        },
    )
    try:
        loop.killed_when(lambda: any(loop.run.glob("iter_01/dpo/train_state/*")))
        assert not (loop.run / "iter_01/dpo/training/stage.json").exists()
        before = {**loop.files("iter_01/*/*.parquet"), **loop.files("iter_01/checkpoint/*.safetensors")}
        loop.succeeds()
        after = {**loop.files("iter_01/*/*.parquet"), **loop.files("iter_01/checkpoint/*.safetensors")}
        assert before.items() <= after.items(), "nothing of SFT is redone"
        yield loop
    finally:
        loop.stop()


def test_every_stage_of_both_trainings_is_committed(finished: Loop) -> None:
    lines = [json.loads(line) for line in (finished.run / "metrics.jsonl").read_text().splitlines()]
    sft = ["judgments", "train_set", "training", "evaluation"]
    assert [line["stage"] for line in lines if line["iteration"] == 1] == sft + [f"dpo_{stage}" for stage in sft]
    (extra,) = (line["extra"] for line in lines if line["stage"] == "dpo_training")
    assert (extra["steps"], extra["started_from"]) == (2, "iter_01/checkpoint")


def test_the_sft_checkpoint_judges_for_dpo(finished: Loop) -> None:
    rows = finished.rows("iter_01/dpo/judgments")
    assert {row["judge"] for row in rows} == {"iter_01"}
    assert len(rows) == 4 * len({(row["pair_id"], row["order"]) for row in rows})


def test_the_reference_is_the_sft_checkpoint(finished: Loop, shallow: str) -> None:
    """The log-probabilities that DPO kept are those of the SFT checkpoint, as transformers has them; not the seed's."""
    (file,) = finished.run.glob("iter_01/dpo/train_state/*/reference.npy")
    kept = np.load(file)
    sft, seed = (log_probabilities(finished, model) for model in (str(finished.run / "iter_01/checkpoint"), shallow))
    assert kept.shape == sft.shape
    np.testing.assert_allclose(kept, sft, rtol=1e-3)
    assert np.abs(kept - seed).max() > 10 * np.abs(kept - sft).max()


def log_probabilities(loop: Loop, model: str) -> np.ndarray[Any, Any]:
    """Of every chosen and rejected judgment, in the order of the training set."""
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ray_app.train.data import encode_table

    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    found = []
    for file in sorted((loop.run / "iter_01/dpo/train_set").glob("shard-*.parquet")):
        encoded, lost = encode_table(
            pq.read_table(file), tokenizer, recipe="dpo", sequence_length=LENGTH, chat_template_kwargs={}
        )
        assert not lost
        for row in encoded.to_pylist():
            ids = torch.tensor([row["tokens"]])
            with torch.no_grad():
                scores = lm(ids).logits[0, :-1].log_softmax(-1)
            picked = scores[torch.arange(ids.shape[1] - 1), ids[0, 1:]]
            found.append(float(picked[row["prompt"] - 1 :].sum()))
    return np.array(found)


def test_dpo_starts_at_its_reference(finished: Loop) -> None:
    """Before the first update policy and reference are one: no margin, and a preference loss of log 2."""
    record = json.loads((finished.run / "iter_01/dpo/checkpoint/training.json").read_text())
    first, second = record["metrics"]
    assert first["dpo_loss"] == pytest.approx(np.log(2), abs=1e-3)
    assert first["margin"] == pytest.approx(0, abs=1e-3)
    assert first["lr"] == pytest.approx(1e-5), "no warm-up"
    assert second["margin"] != 0


def test_the_last_checkpoint_is_a_judge_of_other_weights(finished: Loop) -> None:
    import torch
    from safetensors.torch import load_file

    sft, dpo = (
        load_file(finished.run / place / "checkpoint/model.safetensors") for place in ("iter_01", "iter_01/dpo")
    )
    assert sft.keys() == dpo.keys()
    assert any(not torch.equal(sft[name], dpo[name]) for name in sft)
    card = json.loads((finished.run / "iter_01/dpo/checkpoint/judge.json").read_text())
    assert (card["iteration"], card["mode"]) == (1, "pairwise")
    assert "DPO after SFT" in (finished.run / "iter_01/dpo/checkpoint/README.md").read_text()
