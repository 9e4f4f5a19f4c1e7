"""Encoding: the prompt carries no loss, nothing is cut, faults go to the quarantine with their reason."""

import pyarrow as pa
import pytest
from toy_tokenizers import LATE_SYSTEM, PLAIN, make

from ray_app.errors import InputError
from ray_app.train.answers import RowFault
from ray_app.train.data import concatenate, encode, encode_table
from ray_app.train.template import try_template

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


PROMPT = [{"role": "user", "content": "Which is better?"}]


@pytest.fixture(scope="module")
def tokenizer():
    """Its tokens are bytes; control tokens are `<|turn|>` and `<|end|>`, and its template keeps a text as it is."""
    return make(PLAIN)


def trained(tokenizer, text, drawn=None, **options):
    """The tokens that carry a loss, and the prompt's."""
    encoded = encode(
        tokenizer, PROMPT, said("assistant", text), **{**OPTIONS, "sequence_length": 512, **options}, drawn=drawn
    )
    asked = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_dict=False)
    assert list(encoded.tokens[: encoded.prompt]) == asked
    return list(encoded.tokens[encoded.prompt :])


@pytest.mark.parametrize("text", ["B is. [[B]]", "\n\nB is. [[B]]", "It quotes <|end|>: [[A]]", "  [[A]]"])
@pytest.mark.parametrize("ended", [True, False])
def test_a_judgment_is_trained_on_as_it_was_drawn(tokenizer, text, ended):
    """Also one that quotes a control token, or begins with line breaks; the template ends its turn."""
    end, newline = tokenizer.eos_token_id, tokenizer("\n", add_special_tokens=False).input_ids
    drawn = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert end not in drawn
    assert trained(tokenizer, text, [*drawn, *[end] * ended]) == [*drawn, end, *newline]
    assert trained(tokenizer, text) == [*drawn, end, *newline], "an endpoint gives no tokens: no control token either"


def test_other_tokens_than_a_texts_usual_ones_are_kept():
    raw = make(PLAIN)
    raw.add_tokens(["bet", "ter"])
    usual = raw("better", add_special_tokens=False).input_ids
    drawn = [index for sign in "better" for index in [raw.convert_tokens_to_ids(sign)]]
    assert drawn != usual
    assert trained(raw, "better", drawn)[: len(drawn)] == drawn
    assert trained(raw, "better")[: len(usual)] == usual


@pytest.mark.parametrize("drawn", [[1, 2, 3], [], None])
def test_tokens_that_are_not_those_of_the_text_are_not_used(tokenizer, drawn):
    """A stop string cut the text, or another model's tokenizer made them."""
    usual = tokenizer("[[A]]", add_special_tokens=False).input_ids
    assert trained(tokenizer, "[[A]]", drawn)[: len(usual)] == usual


def test_drawn_tokens_are_never_cut_and_need_a_prompt_that_stays():
    with pytest.raises(RowFault, match="too_long"):
        trained(make(PLAIN), "[[A]]", sequence_length=8)
    late = make(LATE_SYSTEM)
    messages = [{"role": "system", "content": "Judge."}, *PROMPT]
    with pytest.raises(RowFault, match="prompt_not_prefix"):
        encode(late, messages, said("assistant", "\n[[A]]"), **OPTIONS)


def test_tokens_of_a_sister_vocabulary_are_refused():
    """Its marks of reasoning are ids that the seed does not have, or has for something else."""
    sister, seed = make(PLAIN), make(PLAIN)
    sister.add_tokens(["<think>", "</think>"])
    text = "<think>so</think>[[A]]"
    ids = sister(text, add_special_tokens=False).input_ids
    assert max(ids) >= len(seed)
    assert trained(seed, text, ids) == trained(seed, text)
    hidden = make(PLAIN)
    hidden.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    drawn = hidden("[THINK]so[/THINK][[A]]", add_special_tokens=False).input_ids
    assert trained(hidden, text, drawn)[: len(drawn)] == drawn
    assert trained(hidden, text)[: len(drawn)] == drawn, "a text's reasoning gets the seed's own marks"
    seed.add_tokens(["x1", "x2"])  # the same ids mean other things
    with pytest.raises(RowFault, match="reasoning_marks"):
        trained(seed, "<think>so</think>[[A]]", seed("so[[A]]", add_special_tokens=False).input_ids)


def test_a_tokenizer_that_puts_a_space_in_front():
    """As Llama 2's: its decoder takes the space away, and texts from an engine keep it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "▁", *"ABC[]\n", "▁The", "▁best", "<|turn|>"]
    raw = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[], unk_token="<unk>"))
    raw = Tokenizer(
        models.WordPiece(vocab={w: i for i, w in enumerate(words)}, unk_token="<unk>", continuing_subword_prefix="")
    )
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    raw.add_special_tokens([AddedToken("<|end|>", special=True)])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
    made.chat_template = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    drawn = [words.index(w) for w in ("▁The", "▁best", "▁", "[", "[", "A", "]", "]")]
    assert made.decode(drawn) == "The best [[A]]"
    encoded = encode(
        made, said("user", "B"), said("assistant", " The best [[A]]"), **OPTIONS, drawn=[*drawn, made.eos_token_id]
    )
    assert list(encoded.tokens[encoded.prompt :])[:-1] == drawn


OPENS = PLAIN.replace("<|turn|>assistant\n", "<|turn|>assistant\n<think>\n")


def test_a_template_that_opens_reasoning_and_keeps_texts_as_they_are():
    tokenizer = make(OPENS)
    assert OPENS != PLAIN
    drawn = tokenizer("so</think>[[A]]", add_special_tokens=False).input_ids
    assert trained(tokenizer, "<think>\nso</think>[[A]]", drawn)[: len(drawn)] == drawn
    assert try_template(tokenizer, PROMPT, {}) == []


def test_marks_that_are_special_tokens_stay_marks():
    tokenizer = make(PLAIN)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    usual = tokenizer("<think>so</think>[[A]]", add_special_tokens=False).input_ids
    assert trained(tokenizer, "<think>so</think>[[A]]")[: len(usual)] == usual


def test_what_a_template_writes_in_front_of_an_answer_stays():
    tokenizer = make(
        PLAIN.replace("{{ m.content }}", "{% if m.role == 'assistant' %}final: {% endif %}{{ m.content }}")
    )
    found = tokenizer.decode(trained(tokenizer, "\nA. [[A]]"))
    assert found.startswith("final: \nA. [[A]]<|end|>")


def test_a_table_gives_each_answer_its_tokens(tokenizer):
    drawn = [tokenizer(f" [[{letter}]]", add_special_tokens=False).input_ids for letter in "AB"]
    key = {"pair_id": "p", "prompt": PROMPT}
    sft = {**key, "completion": said("assistant", " [[A]]"), "completion_ids": drawn[0]}
    dpo = {**key, "chosen": said("assistant", " [[A]]"), "rejected": said("assistant", " [[B]]")}
    dpo |= {"chosen_drawn": drawn[0], "rejected_drawn": drawn[1]}
    for recipe, row, wanted in (("sft", sft, drawn[:1]), ("dpo", dpo, drawn)):
        table, lost = encode_table(
            pa.Table.from_pylist([row]), tokenizer, recipe=recipe, sequence_length=512, chat_template_kwargs={}
        )
        found = [made["tokens"][made["prompt"] :][: len(drawn[0])] for made in table.to_pylist()]
        assert (found, lost) == (wanted, [])


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
