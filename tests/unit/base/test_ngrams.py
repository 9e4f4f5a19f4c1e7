"""Decontamination by word n-grams."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.base.ngrams import Contamination, ngrams, words

GOLD = "The quick brown fox jumps over the lazy dog"


def contaminated(text: str, *gold: str, n: int = 4) -> bool:
    grams = Contamination(n)
    grams.add(gold)
    return grams.matches(text)


def test_words_are_normalised() -> None:
    assert words("  Don't STOP:\tﬁve straße\u3000Ａ１ …") == ["don", "t", "stop", "five", "strasse", "a1"]
    assert words("秋天的短诗 — été") == [*"秋天的短诗", "été"], (
        "where no space stands between words, each character is one"
    )
    assert words("?! …") == []
    assert words("e\u0301te\u0301") == words("\u00e9t\u00e9")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (GOLD, True),
        ("see: QUICK, brown fox -- jumps?", True),
        ("over the lazy dog", True),
        ("quick brown fox leaps over the lazy cat", False),
        ("fox brown quick the", False),
        ("lazy dog the quick", False),
        ("quick brown fox", False),
        ("", False),
        ("?!", False),
    ],
)
def test_a_shared_run_of_n_words_is_contamination(text: str, wanted: bool) -> None:
    assert contaminated(text, "something else entirely", GOLD) == wanted


def test_a_text_shorter_than_n_must_match_as_a_whole() -> None:
    assert contaminated("Name a bird!", "name a bird")
    assert not contaminated("Name a bird!", "name a bird now please")
    assert not contaminated("Name a bird now please", "name a bird")


def test_the_length_of_a_run_is_the_setting() -> None:
    shared = "quick brown fox jumps high"
    assert contaminated(shared, GOLD, n=4)
    assert not contaminated(shared, GOLD, n=5)
    assert len(list(ngrams(GOLD, 4))) == len(GOLD.split()) - 3


def test_nothing_is_contaminated_without_benchmarks() -> None:
    assert not contaminated(GOLD)
    assert not contaminated("", "")


TEXT = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12)


@given(TEXT, TEXT, st.integers(1, 5))
def test_it_is_the_definition(first: list[str], second: list[str], n: int) -> None:
    def grams(found: list[str]) -> set[tuple[str, ...]]:
        size = min(n, len(found))
        return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)} if found else set()

    assert contaminated(" ".join(first), " ".join(second), n=n) == bool(grams(first) & grams(second))


def test_texts_without_spaces_share_runs_of_characters() -> None:
    """A greeting in front hides nothing: the rest is the same (the one word of old shared nothing)."""
    gold = "请写一篇关于秋天的短文，描述公园里的花草树木。"
    assert contaminated(f"你好，请帮我一个忙：{gold}", gold, n=13)
    assert not contaminated("请写一首关于大海的诗，要有四段。", gold, n=13)
    assert words("ผลไม้") != ["ผลไม้"], "Thai too"
    assert words("한국어 문장") == ["한국어", "문장"], "Korean has spaces"


SHORT = "Name three birds that cannot fly"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"Please help me: {SHORT.upper()}! And say why.", "holds_benchmark_prompt"),
        (SHORT, "contaminated"),
        (f"{SHORT}!", "contaminated"),
        ("Rename three birds that cannot fly", None),
        ("Name three birds that cannot flying", None),
        ("Name three birds. That cannot, as we know, fly", None),
        ("Please say hello world to me", None),
        (f"I say {GOLD}", "contaminated"),
        ("", None),
    ],
)
def test_short_benchmark_prompts_are_found_inside_longer_texts(text: str, reason: str | None) -> None:
    """As whole words in a row; those of fewer than `min_words` only where they are all of a text."""
    grams = Contamination(8, min_words=6)
    grams.add([SHORT, "hello world", GOLD])
    assert grams.fault(text) == reason
    assert grams.matches(text) == (reason is not None)
    assert grams.fault("Hello world?") == "contaminated"
    off = Contamination(8)
    off.add([SHORT, "hello world", GOLD])
    assert off.fault(text) == (reason if reason == "contaminated" else None)


@given(TEXT, st.lists(TEXT, max_size=3), st.integers(1, 5))
def test_short_prompts_are_those_of_the_definition(text: list[str], prompts: list[list[str]], least: int) -> None:
    grams = Contamination(6, min_words=least)
    grams.add(" ".join(prompt) for prompt in prompts)
    short = [f" {' '.join(prompt)} " for prompt in prompts if least <= len(prompt) < 6]
    held = any(prompt in f" {' '.join(text)} " for prompt in short)
    if grams.fault(" ".join(text)) != "contaminated":
        assert grams.matches(" ".join(text)) == held


def test_another_process_finds_the_same() -> None:
    """Engines get them pickled, and Python salts its hashes of texts anew in every process."""
    grams = Contamination(8, min_words=6)
    grams.add([SHORT, GOLD])
    code = (
        "import pickle, sys; grams = pickle.loads(pickle.loads(sys.stdin.buffer.read())); "
        f"print(grams.fault({GOLD!r}), grams.fault('So: ' + {SHORT!r}), grams.fault('Nothing of it at all'))"
    )
    again = pickle.loads(pickle.dumps(grams))
    again.add(["One more prompt of eight words, so long."])
    for known in (grams, again):
        data = pickle.dumps(pickle.dumps(known))
        environment = {**os.environ, "PYTHONHASHSEED": "77"}
        done = subprocess.run(
            [sys.executable, "-c", code], input=data, capture_output=True, check=True, env=environment
        )
        assert done.stdout.decode().split() == ["contaminated", "holds_benchmark_prompt", "None"]
    assert again.fault("one more prompt of eight words so long") == "contaminated"
    assert grams.fault("one more prompt of eight words so long") is None
