"""The real model inside a larger shape judges as it does by itself: what stands for an 8B model on 8 GPUs is no toy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model_folders  # type: ignore[import-not-found]
import pytest
import torch
from shapes import SHAPES  # type: ignore[import-not-found]

from ray_app.base.prompts import load_prompt
from ray_app.generation.programs.rows import judge_messages

PAIR = {
    "instruction": "Name three animals that can fly.",
    "first": "A bat, an eagle and a bee.",
    "second": "A dog, a cow and a stone.",
}


@pytest.fixture(scope="module")
def padded(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "padded"
    model_folders.padded(SHAPES["tiny-8b"], Path(model), folder, torch.float32)
    return str(folder)


def loaded(folder: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return lm, AutoTokenizer.from_pretrained(folder)


def test_an_empty_folder_has_a_token_for_every_row_of_the_output_layer(model: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    shape = SHAPES["tiny-70b"]
    model_folders.empty(shape, Path(model), tmp_path / "empty")
    own, tokenizer = (AutoTokenizer.from_pretrained(folder) for folder in (model, tmp_path / "empty"))
    assert len(tokenizer) == AutoConfig.from_pretrained(tmp_path / "empty").vocab_size == shape.vocabulary > len(own)
    text = "<|im_start|>user\nWhich is better?<|im_end|> unused49152"
    assert tokenizer(text).input_ids == own(text).input_ids
    assert tokenizer.decode([own.vocab_size - 1, shape.vocabulary - 1]).endswith(f"unused{shape.vocabulary - 1}")


def test_logits_and_greedy_text_are_the_models_own(model: str, padded: str) -> None:
    own, tokenizer = loaded(model)
    larger, its_tokenizer = loaded(padded)
    assert (larger.config.hidden_size, larger.config.head_dim, larger.config.num_attention_heads) == (640, 128, 16)
    messages = judge_messages(load_prompt("judge_pairwise_small"), PAIR)
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    assert its_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == (
        asked["input_ids"][0].tolist()
    )
    with torch.no_grad():
        torch.testing.assert_close(larger(**asked).logits, own(**asked).logits, rtol=0, atol=2e-3)
        said = [lm.generate(**asked, max_new_tokens=12, do_sample=False)[0] for lm in (own, larger)]
    assert said[0].tolist() == said[1].tolist()
