"""A seed model of a revision: config, tokenizer and weights all come from it, none from the default branch."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from ray_app.train.candidate_export import save_beside
from ray_app.train.encoding import model_facts
from ray_app.train.load import weight_files
from ray_app.train.model import build
from ray_app.train.settings import TrainSettings

MODEL = "owner/tiny"
POSITIONS = {"main": 64, "v2": 128}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache with two revisions of one model."""
    root = tmp_path / "hub" / "models--owner--tiny"
    for number, (revision, positions) in enumerate(POSITIONS.items()):
        commit = f"{number}" * 40
        snapshot = root / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / revision).write_text(commit)
        config = {
            "model_type": "llama", "vocab_size": 4, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "max_position_embeddings": positions,
        }  # fmt: skip
        (snapshot / "config.json").write_text(json.dumps(config))
        (snapshot / "generation_config.json").write_text(json.dumps({"max_length": positions}))
        (snapshot / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
        Tokenizer(WordLevel({revision: 0}, unk_token=revision)).save(str(snapshot / "tokenizer.json"))
        save_file({"lm_head.weight": torch.full((4, 8), float(positions))}, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("revision", "read"), [(None, "main"), ("main", "main"), ("v2", "v2")])
def test_everything_is_read_from_the_revision(tmp_path, revision, read):
    assert model_facts(MODEL, revision).max_positions == POSITIONS[read]
    out = tmp_path / "out"
    out.mkdir()
    save_beside(MODEL, revision, "LlamaForCausalLM", torch.bfloat16, out)
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == POSITIONS[read]
    assert json.loads((out / "generation_config.json").read_text())["max_length"] == POSITIONS[read]
    assert read in json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]
    (file,) = weight_files(MODEL, revision).values()
    assert f"{list(POSITIONS).index(read)}" * 40 in str(file)


@pytest.mark.usefixtures("hub")
def test_weights_are_those_of_the_revision():
    """No file names every parameter here, so transformers loads them itself."""
    settings = TrainSettings(use_gpu=False, bf16=False, zero={"stage": 2})
    lm = build(MODEL, settings, {"train_micro_batch_size_per_gpu": 1}, weights=True, revision="v2")
    assert lm.config.max_position_embeddings == POSITIONS["v2"]
    assert lm.lm_head.weight.unique().tolist() == [float(POSITIONS["v2"])]
