"""Facts of a model's config: read without PyTorch where the names are the usual ones, by transformers elsewhere."""

import json
import subprocess
import sys

import pytest

from ray_app.errors import InputError
from ray_app.train.encoding import model_facts

LLAMA = {"model_type": "llama", "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64}
GPT2 = {"model_type": "gpt2", "n_layer": 3, "n_head": 4, "n_positions": 64, "n_embd": 8}


@pytest.mark.parametrize("config", [LLAMA, GPT2])
def test_the_facts_do_not_depend_on_the_names(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = model_facts(str(tmp_path))
    assert (facts.layers, facts.attention_heads, facts.max_positions) == (3, 4, 64)


def test_usual_names_need_no_pytorch(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    read = f"from ray_app.train.encoding import model_facts; model_facts({str(tmp_path)!r})"
    code = f"import sys; {read}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_what_a_config_leaves_out_is_its_classs_default(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in LLAMA.items() if not k.startswith("max_")}))
    assert model_facts(str(tmp_path)).max_positions == 2048


def test_a_multimodal_config_is_that_of_its_text_part(tmp_path):
    text = {"num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    assert model_facts(str(tmp_path)).layers == 3


UNHEARD_OF = json.dumps({**LLAMA, "model_type": "unheard-of"})


@pytest.mark.parametrize("text", ["{", '{"model_type": "unheard-of"}', UNHEARD_OF, "\xff"])
def test_a_config_that_cannot_be_read_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"^judge.model: .* cannot be read: [^\n]+$"):
        model_facts(str(tmp_path))


def test_a_missing_config_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read"):
        model_facts(str(tmp_path / "nothing"))
