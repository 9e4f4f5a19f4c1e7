"""Decontamination by word n-grams."""

from __future__ import annotations

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
