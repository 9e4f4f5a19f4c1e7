"""The demo's files: counts, balance, and gold labels that are computed, not trusted.

    pytest tests/unit/test_demo_data.py

Every row of configs/demo/{validation,test}.jsonl carries a `check`, a small statement that the labelled
response satisfies and the other does not. `satisfies` below is the only reader of it: models never see it.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.ngrams import Contamination, words
from ray_app.base.prompts import CATEGORIES
from ray_app.base.schema import PairwiseRow
from ray_app.benchmarks.files import read_numbered
from ray_app.benchmarks.pairwise import OPTIONAL, REQUIRED, parse

Row = dict[str, Any]

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo"
PAIRWISE = {"validation": 32, "test": 64}
SUBSETS = {
    "validation": {"arithmetic": 12, "facts": 10, "format": 10},
    "test": {"arithmetic": 24, "facts": 20, "format": 20},
}
KINDS = {"arithmetic": "arithmetic", "facts": "contains", "format": "format"}
# Numbers a word problem may leave out: powers ("squared"), counts of things listed, units, percent.
IMPLIED = {Fraction(n) for n in (2, 3, 7, 60, 100)}


def load(name: str) -> list[Row]:
    with (DEMO / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


FILES = {name: load(name) for name in ("instructions", *PAIRWISE)}
PAIRS = [pytest.param(row, id=row["id"]) for name in PAIRWISE for row in FILES[name]]

# --- what a check means -----------------------------------------------------------------------------------

_OPERATORS: dict[type, Callable[[Fraction, Fraction], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")
_EQUATION = re.compile(r"(\(?\d[\d.]*(?: [+−×÷] [\d.]*\d\)?)+) = (\d[\d.]*\d|\d)")


def compute(expression: str) -> Fraction:
    """Exact value of an expression of numbers, + - * / ** and brackets; ValueError for anything else."""

    def visit(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return Fraction(str(node.value))
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return Fraction(_OPERATORS[type(node.op)](visit(node.left), visit(node.right)))
        raise ValueError(f"not arithmetic: {ast.dump(node)}")

    return visit(ast.parse(expression, mode="eval").body)


def numbers(text: str) -> list[Fraction]:
    return [Fraction(found) for found in _NUMBER.findall(text)]


def equations(text: str) -> list[tuple[Fraction, Fraction]]:
    """(left, right) of each `a × b = c` in a text."""
    signs = str.maketrans("−×÷", "-*/")
    return [(compute(left.translate(signs)), Fraction(right)) for left, right in _EQUATION.findall(text)]


def has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text.casefold()) is not None


def sentences(text: str) -> int:
    return len(re.findall(r"[.!?](?=\s|$)", text))


def json_keys(text: str) -> list[str] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return sorted(value) if isinstance(value, dict) else None


def plain(text: str) -> str:
    return text.strip().casefold().rstrip(".")


RULES: dict[str, Callable[[str, Mapping[str, Any]], bool]] = {
    "bullets": lambda t, c: len(t.split("\n")) == c["count"] and all(x.startswith("- ") for x in t.split("\n")),
    "numbered": lambda t, c: [x.split(" ")[0] for x in t.split("\n")] == [f"{n + 1}." for n in range(c["count"])],
    "lines": lambda t, c: len(t.split("\n")) == c["count"],
    "sentences": lambda t, c: sentences(t) == c["count"],
    "exact_words": lambda t, c: len(t.split()) == c["count"],
    "max_words": lambda t, c: 0 < len(t.split()) <= c["count"],
    "uppercase": lambda t, c: t.isupper(),
    "lowercase": lambda t, c: t.islower(),
    "starts_with": lambda t, c: t.startswith(c["text"]),
    "ends_with": lambda t, c: t.endswith(c["text"]),
    "exact": lambda t, c: plain(t) == plain(c["text"]),
    "contains_word": lambda t, c: has_word(t, c["text"]),
    "no_letter": lambda t, c: c["text"].casefold() not in t.casefold(),
    "no_digits": lambda t, c: not any(x.isdigit() for x in t),
    "json_keys": lambda t, c: json_keys(t) == sorted(c["keys"]),
}


def satisfies(text: str, check: Mapping[str, Any]) -> bool:
    """Whether a response satisfies a row's check."""
    if check["kind"] == "arithmetic":
        return numbers(text)[-1:] == [Fraction(check["answer"])]  # the last number is the one answered
    if check["kind"] == "contains":
        return has_word(text, check["value"])
    return RULES[check["rule"]](text, check)


def gold(row: Row) -> str:
    return str(row["response_a"] if row["label"] == "A" else row["response_b"])


def other(row: Row) -> str:
    return str(row["response_b"] if row["label"] == "A" else row["response_a"])


def share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found)


# --- instructions -----------------------------------------------------------------------------------------


def test_instructions_have_the_promised_shape() -> None:
    rows = FILES["instructions"]
    assert len(rows) == 64
    for row in rows:
        assert set(row) == {"id", "instruction", "category", "source"}
        assert row["source"] == "demo"
        assert row["instruction"] == row["instruction"].strip()
        assert 3 <= len(row["instruction"].split()) <= 40, row["id"]


def test_instructions_cover_every_category() -> None:
    counts = Counter(row["category"] for row in FILES["instructions"])
    assert set(counts) == set(CATEGORIES)
    assert set(counts.values()) <= {4, 5}


def test_the_first_instructions_differ_in_category() -> None:
    """So that `--limit 15` still sees all of them."""
    assert {row["category"] for row in FILES["instructions"][:15]} == set(CATEGORIES)


# --- pairwise files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRWISE)
def test_pairwise_counts(name: str) -> None:
    rows = FILES[name]
    assert len(rows) == PAIRWISE[name]
    assert Counter(row["subset"] for row in rows) == SUBSETS[name]
    columns = {"id", "subset", "instruction", "response_a", "response_b", "label", "check"}
    assert all(set(row) == columns for row in rows)


@pytest.mark.parametrize("name", PAIRWISE)
def test_the_reader_takes_every_row(name: str) -> None:
    path = str(DEMO / f"{name}.jsonl")
    items = list(parse(read_numbered(path, REQUIRED, OPTIONAL)))
    assert len(items) == PAIRWISE[name]
    assert all(isinstance(item, PairwiseRow) for item in items)


@pytest.mark.parametrize("name", PAIRWISE)
def test_labels_are_balanced_in_every_subset(name: str) -> None:
    counts = Counter((row["subset"], row["label"]) for row in FILES[name])
    assert counts == {(s, letter): n // 2 for s, n in SUBSETS[name].items() for letter in "AB"}


@pytest.mark.parametrize("name", PAIRWISE)
def test_length_does_not_give_the_label_away(name: str) -> None:
    rows = FILES[name]
    assert all(len(gold(row)) != len(other(row)) for row in rows)
    for subset in SUBSETS[name]:
        assert share(len(gold(r)) > len(other(r)) for r in rows if r["subset"] == subset) == 0.5
    for letter in "AB":
        longer = share(len(gold(r)) > len(other(r)) for r in rows if r["label"] == letter)
        assert 0.45 <= longer <= 0.55
    assert 0.4 <= share(len(gold(r).split()) > len(other(r).split()) for r in rows) <= 0.6
    assert 0.45 <= share(len(r["response_a"]) > len(r["response_b"]) for r in rows) <= 0.55


@pytest.mark.parametrize("row", PAIRS)
def test_gold_satisfies_its_check_and_the_other_does_not(row: Row) -> None:
    assert row["check"]["kind"] == KINDS[row["subset"]]
    assert satisfies(gold(row), row["check"])
    assert not satisfies(other(row), row["check"])


@pytest.mark.parametrize("row", PAIRS)
def test_responses_are_short(row: Row) -> None:
    for text in (row["response_a"], row["response_b"]):
        assert text == text.strip()
        assert 1 <= len(text.split()) <= 40


@pytest.mark.parametrize("row", [p for p in PAIRS if p.values[0]["subset"] == "arithmetic"])  # type: ignore[index]
def test_arithmetic_gold_is_computed(row: Row) -> None:
    check = row["check"]
    answer = compute(check["expression"])
    assert answer == Fraction(check["answer"])
    assert answer not in numbers(other(row))
    assert all(left == right for left, right in equations(gold(row)))
    used, given = (
        Counter(numbers(check["expression"].replace("*", " "))),
        Counter(numbers(row["instruction"])),
    )
    assert not given - used, "a number of the instruction is not in the expression"
    assert set(used - given) <= IMPLIED, "the expression uses a number that the instruction does not give"


@pytest.mark.parametrize("row", [p for p in PAIRS if p.values[0]["subset"] == "facts"])  # type: ignore[index]
def test_the_instruction_does_not_name_the_fact(row: Row) -> None:
    assert not has_word(row["instruction"], row["check"]["value"])


# --- between the files ------------------------------------------------------------------------------------


def test_ids_and_instructions_are_unique() -> None:
    rows = [row for name in FILES for row in FILES[name]]
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({tuple(words(row["instruction"])) for row in rows}) == len(rows)


def full_text(row: Row) -> list[str]:
    return [row[column] for column in ("instruction", "response_a", "response_b") if column in row]


@pytest.mark.parametrize(("left", "right"), list(combinations(FILES, 2)))
def test_no_13_gram_is_shared(left: str, right: str) -> None:
    for one, two in ((left, right), (right, left)):
        grams = Contamination(13)
        grams.add(row["instruction"] for row in FILES[one])
        assert [row["id"] for row in FILES[two] if grams.matches(row["instruction"])] == []
    long = [{g for r in FILES[n] for t in full_text(r) for g in thirteen(t)} for n in (left, right)]
    assert not long[0] & long[1]


def thirteen(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + 13]) for i in range(len(found) - 12)}


def asked(name: str) -> set[str]:
    """The sums and facts a file asks for. A format rule may recur with another task."""
    checks = [row["check"] for row in FILES[name] if row["subset"] != "format"]
    return {str(check.get("expression") or check["value"]).casefold() for check in checks}


def test_validation_and_test_ask_different_things() -> None:
    assert len(asked("validation")) == 22
    assert len(asked("test")) == 44
    assert not asked("validation") & asked("test")


# --- the checker itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ({"kind": "arithmetic", "answer": "102"}, "17 × 6 = 102.", "102 would be wrong; it is 112."),
        ({"kind": "contains", "value": "Au"}, "It is Au.", "From aurum."),
        ({"kind": "format", "rule": "bullets", "count": 2}, "- a\n- b", "- a\nb"),
        ({"kind": "format", "rule": "numbered", "count": 2}, "1. a\n2. b", "1. a\n3. b"),
        ({"kind": "format", "rule": "sentences", "count": 2}, "One. Two!", "Pi is 3.14."),
        ({"kind": "format", "rule": "json_keys", "keys": ["b", "a"]}, '{"a": 1, "b": 2}', '["a", "b"]'),
        ({"kind": "format", "rule": "exact", "text": "yes"}, "Yes.", "Yes!"),
        ({"kind": "format", "rule": "contains_word", "text": "lantern"}, "A lantern.", "Two lanterns."),
        ({"kind": "format", "rule": "no_letter", "text": "e"}, "A dog", "An EEL"),
    ],
)
def test_checker(check: Mapping[str, Any], good: str, bad: str) -> None:
    assert satisfies(good, check)
    assert not satisfies(bad, check)


def test_equations_are_found_and_computed() -> None:
    found = equations("First 6 + 4 × 7 = 34, then 34 − 4 = 31.")
    assert found == [(Fraction(34), Fraction(34)), (Fraction(30), Fraction(31))]
    with pytest.raises(ValueError, match="not arithmetic"):
        compute("abs(3)")


def test_every_rule_is_used() -> None:
    rules = {r["check"]["rule"] for name in PAIRWISE for r in FILES[name] if r["subset"] == "format"}
    assert rules == set(RULES)
