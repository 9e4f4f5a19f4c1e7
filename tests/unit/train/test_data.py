"""Encoding: the prompt carries no loss, nothing is cut, faults go to the quarantine with their reason."""

import pyarrow as pa
import pytest

from ray_app.errors import InputError
from ray_app.train.data import RowFault, concatenate, encode, encode_table

OPTIONS = {"sequence_length": 64, "chat_template_kwargs": {}}


def said(role, text):
    return [{"role": role, "content": text}]


def row(prompt="w1 w2", completion="w3 w4", **key):
    return {
        "pair_id": "p", "order": "chosen_first", "sample": 0, "iteration": 1,
        "prompt": said("user", prompt), "completion": said("assistant", completion), **key,
    }  # fmt: skip


def test_completion_tokens_follow_the_prompt_the_engines_use(word_tokenizer):
    encoded = encode(word_tokenizer, said("user", "w1 w2"), said("assistant", "w3"), **OPTIONS)
    prompt = word_tokenizer.apply_chat_template(said("user", "w1 w2"), add_generation_prompt=True, return_dict=False)
    assert list(encoded.tokens[: encoded.prompt]) == prompt
    assert word_tokenizer.convert_ids_to_tokens(encoded.tokens[encoded.prompt :]) == ["w3", "<end>"]


def test_a_judgment_that_was_stopped_at_its_verdict_ends_the_turn_right_there(word_tokenizer):
    """So a model learns to end behind its verdict by itself, where nobody stops it."""
    word_tokenizer.add_tokens(["[[A]]"])
    encoded = encode(word_tokenizer, said("user", "w1"), said("assistant", "w3 [[A]]"), **OPTIONS)
    trained = word_tokenizer.convert_ids_to_tokens(encoded.tokens[encoded.prompt :])
    assert trained == ["w3", "[[A]]", "<end>"]


@pytest.mark.parametrize("prompt", ["w1", "w1 w2", "w9 w8"])
def test_the_loss_tokens_do_not_depend_on_the_prompt(word_tokenizer, prompt):
    encoded = encode(word_tokenizer, said("user", prompt), said("assistant", "w3 w4"), **OPTIONS)
    assert len(encoded.tokens) - encoded.prompt == 3


def test_a_row_is_never_cut(word_tokenizer):
    exact = {**OPTIONS, "sequence_length": 9}
    assert len(encode(word_tokenizer, said("user", "w1 w2"), said("assistant", "w3"), **exact).tokens) == 9
    with pytest.raises(RowFault, match="too_long: 10 tokens"):
        encode(word_tokenizer, said("user", "w1 w2"), said("assistant", "w3 w4"), **exact)


def test_a_template_that_rewrites_the_prompt_is_refused(word_tokenizer, monkeypatch):
    rewriting = "{{ messages | length }} " + word_tokenizer.chat_template
    monkeypatch.setattr(
        word_tokenizer, "chat_template", rewriting.replace("{{ messages | length }}", "w{{ messages | length }}")
    )
    with pytest.raises(RowFault, match="prompt_not_prefix"):
        encode(word_tokenizer, said("user", "w1"), said("assistant", "w3"), **OPTIONS)


def test_a_template_that_drops_text_is_refused(word_tokenizer, monkeypatch):
    template = word_tokenizer.chat_template.replace("m['content'] }}", "m['content'].split('w7')[-1] }}")
    monkeypatch.setattr(word_tokenizer, "chat_template", template)
    with pytest.raises(RowFault, match="template_drops_text"):
        encode(word_tokenizer, said("user", "w1"), said("assistant", "w5 w7 w8"), **OPTIONS)


def test_faulty_rows_are_quarantined_and_the_others_kept(word_tokenizer):
    table = pa.Table.from_pylist([row(), row(completion="  ", pair_id="q"), row(prompt="w1 " * 80, pair_id="r")])
    encoded, quarantine = encode_table(table, word_tokenizer, recipe="sft", **OPTIONS)
    assert encoded.column("id").to_pylist() == ["p/chosen_first/0/1"]
    assert [(q["id"], q["stage"], q["reason"]) for q in quarantine] == [
        ("q/chosen_first/0/1", "training", "empty_completion"),
        ("r/chosen_first/0/1", "training", "too_long"),
    ]


def test_a_missing_column_is_an_error(word_tokenizer):
    with pytest.raises(InputError, match="'chosen' is missing"):
        encode_table(pa.Table.from_pylist([row()]), word_tokenizer, recipe="dpo", **OPTIONS)


def test_preference_rows_lie_side_by_side_and_are_dropped_whole(word_tokenizer):
    def preference(chosen, rejected, pair):
        both = {"chosen": said("assistant", chosen), "rejected": said("assistant", rejected)}
        return {**{k: v for k, v in row(pair_id=pair).items() if k != "completion"}, **both}

    table = pa.Table.from_pylist([preference("w3", "w4 w5", "a"), preference("w3", "w4 " * 90, "b")])
    encoded, quarantine = encode_table(table, word_tokenizer, recipe="dpo", **OPTIONS)
    rows = concatenate([encoded], unit_rows=2)
    assert encoded.column("side").to_pylist() == [0, 1]
    assert len(quarantine) == 1
    assert rows.unit_lengths.tolist() == [sum(rows.lengths.tolist())]
    assert word_tokenizer.convert_ids_to_tokens(rows.row(1)[rows.prompts[1] :].tolist()) == ["w4", "w5", "<end>"]


def test_concatenate_keeps_order_and_contents(word_tokenizer):
    tables = [
        encode_table(pa.Table.from_pylist([row(completion=f"w{i} " * i)]), word_tokenizer, recipe="sft", **OPTIONS)[0]
        for i in (1, 2, 3)
    ]
    rows = concatenate(tables)
    assert len(rows) == 3
    for i in (1, 2, 3):
        words = word_tokenizer.convert_ids_to_tokens(rows.row(i - 1)[rows.prompts[i - 1] :].tolist())
        assert words == [f"w{i}"] * i + ["<end>"]
