"""No text becomes a control token of a model's own vocabulary, and reasoning that was cut off is never an answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from toy_tokenizers import make

from ray_app.base.prompts import as_messages, load_prompt
from ray_app.base.tokens import broken, control_tokens, decode, drawn_text, marks_of
from ray_app.base.verdict import own_text, parse_verdict

# How families mark turns, tools, reasoning and gaps: special tokens, then added ones that are not marked as special.
FAMILIES: dict[str, tuple[list[str], list[str]]] = {
    "llama2": (["<s>", "</s>", "<unk>"], []),
    "llama3": (["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|python_tag|>"], []),
    "qwen2.5": (["<|im_start|>", "<|im_end|>", "<|endoftext|>"], ["<tool_call>", "</tool_call>", "<|fim_prefix|>"]),
    "qwen3": (["<|im_start|>", "<|im_end|>"], ["<think>", "</think>", "<tool_response>", "</tool_response>"]),
    "gemma2": (["<bos>", "<eos>", "<pad>"], ["<start_of_turn>", "<end_of_turn>", "<table>", "\n\n", "   "]),
    "gemma3": (["<bos>", "<start_of_image>"], ["<start_of_turn>", "<unused99>", "<b>", "</b>", "<mask>"]),
    "gemma4": (["<|turn>", "<turn|>", "<|channel>", "<channel|>", '<|"|>', "<|tool_call>"], []),
    "mistral1": (["<s>", "</s>"], []),
    "mistral3": (["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[IMG_BREAK]"], []),
    "magistral": (["[INST]", "[/INST]", "[THINK]", "[/THINK]", "[SYSTEM_PROMPT]"], []),
    "phi3": (["<|user|>", "<|assistant|>", "<|end|>", "<|placeholder1|>"], []),
    "phi4": (["<|im_start|>", "<|im_sep|>", "<|fim_middle|>"], []),
    "deepseek": (["<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜end▁of▁sentence｜>"], ["<｜tool▁calls▁begin｜>"]),
    "command": (["<|START_OF_TURN_TOKEN|>", "<|END_THINKING|>", "<|START_THINKING|>", "<BOS_TOKEN>"], []),
    "olmo2": (["<|endoftext|>", "<|user|>"], ["|||IP_ADDRESS|||", "|||EMAIL_ADDRESS|||"]),
    "glm4": (["[gMASK]", "[sMASK]", "<sop>", "<|observation|>"], ["<arg_key>", "</arg_value>"]),
    "gpt_oss": (["<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|constrain|>"], []),
    "kimi": (["[BOS]", "[EOS]", "<|im_user|>"], ["◁think▷", "◁/think▷", "<|media_pad|>"]),
    "granite": (["<|start_of_role|>", "<|end_of_role|>", "<fim_prefix>", "<gh_stars>"], []),
    "hunyuan": (["<｜hy_User｜>", "<｜hy_place▁holder▁no▁2｜>"], ["<answer>", "</answer>"]),
    "seed_oss": (["<seed:bos>", "<seed:think>", "</seed:think>", "<seed:cot_budget_reflect>"], []),
    "minimax": (["]~!b[", "]~b]", "[e~["], ["<minimax:tool_call>"]),
    "internlm2": (["<|im_start|>", "<|action_start|>", "[UNUSED_TOKEN_141]"], []),
    "stablelm": (["<|endoftext|>", "<|reg_extra|>", "<empty_output>"], []),
}  # fmt: skip


def vocabulary(special: list[str], added: list[str]) -> Any:
    """A tokenizer of bytes with these added tokens."""
    return make(None, eos=None, special=special, added=added)


TOKENIZERS = {name: vocabulary(*tokens) for name, tokens in FAMILIES.items()}
PIECES = st.sampled_from(["<", "|", ">", "[", "]", "x", " ", "\n", "</", "｜", "\u2060", "Which?", "<b>", "<table>"])


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_text_becomes_a_control_token(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FAMILIES)))
    tokenizer = TOKENIZERS[name]
    control = control_tokens(tokenizer)
    text = "".join(data.draw(st.lists(st.one_of(st.sampled_from(sorted(control)), PIECES), max_size=8)))
    clean = broken(text, control)
    ids = set(tokenizer(clean, add_special_tokens=False).input_ids)
    assert not {tokenizer.convert_ids_to_tokens(index) for index in ids} & control
    assert broken(clean, control) == clean
    assert clean.replace("\u2060", "") == text.replace("\u2060", ""), "a reader sees the same"


def test_white_space_and_html_are_text() -> None:
    assert control_tokens(TOKENIZERS["gemma3"]) == {
        "<bos>",
        "<start_of_image>",
        "<start_of_turn>",
        "<unused99>",
        "<mask>",
    }
    assert control_tokens(object()) == frozenset(), "a tokenizer that never makes them from text"


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_prompts_are_guarded_by_the_readers_vocabulary(name: str) -> None:
    control = control_tokens(TOKENIZERS[name])
    token = min(control)
    prompt = load_prompt("judge_pairwise").guarded(control)
    shown = prompt.render(instruction=token, response_a=f"a {token}", response_b=[{"role": "user", "content": token}])
    assert token not in shown[-1]["content"]
    assert token not in as_messages([{"role": "user", "content": token}], control)[0]["content"]
    assert prompt.hash == load_prompt("judge_pairwise").hash, "who reads a wording is no part of it"


MARKS = {
    "gemma4": ("<|channel>", "<channel|>"),
    "magistral": ("[THINK]", "[/THINK]"),
    "command": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "seed_oss": ("<seed:think>", "</seed:think>"),
}


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize("opened", ["", "<think>\n"])
def test_reasoning_between_marks_that_text_hides(name: str, opened: str) -> None:
    """`opened`: where the template wrote the opening mark, the drawn tokens do not hold it."""
    tokenizer, (opens, closes) = TOKENIZERS[name], MARKS[name]
    own = marks_of(tokenizer)
    begin = "" if opened else opens
    for text, verdict in (
        (f"{begin}is it [[A]]?{closes}No. [[B]]", "B"),
        (f"{begin}is it [[A]]", None),
        (f"{begin}a{closes}b{opens}or [[A]]", None),
    ):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        shown = decode(tokenizer, ids)
        assert opens not in shown
        said = drawn_text(shown, tokenizer, ids, own, opened)
        assert parse_verdict(said) == verdict
        assert (own_text(said) is None) == (verdict is None)


def test_a_stop_string_ends_the_text_and_not_its_tokens() -> None:
    tokenizer = TOKENIZERS["magistral"]
    ids = tokenizer("[THINK]so[/THINK][[A]] and more", add_special_tokens=False).input_ids
    said = drawn_text("so[[A]]", tokenizer, ids, marks_of(tokenizer))
    assert said == "<think>so</think>[[A]]"


@pytest.mark.parametrize("name", ["qwen3", "llama3", "magistral"])
def test_text_without_reasoning_and_with_visible_marks_is_as_it_is(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    for text in ("Plain. [[A]]", "<think>x</think>[[B]]", "<think>x"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert drawn_text(decode(tokenizer, ids), tokenizer, ids, marks_of(tokenizer)) == text


def test_marks_that_are_only_quoted_close_nothing() -> None:
    """The response that is judged may provoke the quote."""
    tokenizer = TOKENIZERS["magistral"]
    for text, verdict in (
        ("[THINK]B writes </think> so [[A]] may", None),
        ("[THINK]so[/THINK]It quotes <think>. [[B]]", "B"),
    ):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert parse_verdict(drawn_text(decode(tokenizer, ids), tokenizer, ids, marks_of(tokenizer))) == verdict


def test_harmony_answers_in_its_last_final_channel() -> None:
    tokenizer = vocabulary(*FAMILIES["gpt_oss"])
    tokenizer.add_tokens([AddedToken("final", special=False, normalized=False)])
    own = marks_of(tokenizer)
    for text, verdict in (
        ("<|channel|>analysis<|message|>is it [[A]]<|start|>assistant<|channel|>final<|message|>[[B]]", "B"),
        ("<|channel|>analysis<|message|>it is [[A]]", None),
        ("<|channel|>final<|message|>[[A]]", "A"),
    ):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert parse_verdict(drawn_text(decode(tokenizer, ids), tokenizer, ids, own)) == verdict


class Mistral:
    """A tokenizer that tells only its special tokens, and shows them in some texts."""

    all_special_tokens, all_special_ids = ["[THINK]", "[/THINK]", "[INST]"], [1, 2, 3]

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join({1: "[THINK]", 2: "[/THINK]"}.get(index, chr(index)) for index in ids)


def test_a_tokenizer_of_another_make_has_marks_too() -> None:
    tokenizer = Mistral()
    own = marks_of(tokenizer)
    assert control_tokens(tokenizer) == {"[THINK]", "[/THINK]", "[INST]"}
    cut, ended = [1, *map(ord, "or [[A]]")], [1, *map(ord, "or [[A]]"), 2, *map(ord, "No. [[B]] and")]
    assert parse_verdict(drawn_text(tokenizer.decode(cut), tokenizer, cut, own)) is None
    said = drawn_text("[THINK]or [[A]][/THINK]No. [[B]]", tokenizer, ended, own)
    assert said == "<think>or [[A]]</think>No. [[B]]", "cut where the stop string was"
