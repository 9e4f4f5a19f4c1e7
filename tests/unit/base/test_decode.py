"""Decoding of generated ids: the same for Hugging Face tokenizers and for vLLM's own, which take fewer arguments."""

from __future__ import annotations

from pathlib import Path

import mistral_common
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ray_app.base.tokens import decode


@pytest.mark.parametrize("tidies", [True, False])
def test_spaces_stay_as_generated(tidies: bool) -> None:
    words = {word: i for i, word in enumerate(["Fine", ".", "do", "n't", "<end>"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="Fine"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", clean_up_tokenization_spaces=tidies)
    assert decode(tokenizer, (0, 1, 2, 3, 4)) == "Fine . do n't"


@pytest.mark.parametrize("file", ["mistral_instruct_tokenizer_240323.model.v3", "tekken_240911.json"])
def test_vllms_mistral_tokenizer(tmp_path: Path, file: str) -> None:
    from vllm.tokenizers.mistral import MistralTokenizer

    name = "tekken.json" if file.startswith("tekken") else file
    (tmp_path / name).symlink_to(Path(mistral_common.__file__).parent / "data" / file)
    tokenizer = MistralTokenizer.from_pretrained(str(tmp_path))
    text = "It does n't matter . [[A]]"
    ids = tokenizer.encode(text, add_special_tokens=True)
    assert decode(tokenizer, [*ids, tokenizer.eos_token_id]) == text
