"""Until-correct sampling keeps what "N samples, one random correct one" keeps, for the tokens the formula says.

The judging program asks an engine whose pass rate, share of unparsed and mix of wordings are known for each prompt;
docs/until_correct.md has the argument. Every draw follows from fixed seeds, so no outcome can vary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest
from replaying import Call, Replay, run
from scipy import stats

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import unit_interval
from ray_app.engine.base import Sampling, UnitResult
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.generation.programs.rows import judge_messages, pair_units
from ray_app.judging.rejection_sampling import Rule as Choosing
from ray_app.judging.rejection_sampling import preferences, select
from ray_app.judging.samples import Sample

N, PAIRS = 15, 1000
P = (0.05, 0.1, 0.3, 0.5, 0.7, 0.95)
UNPARSED = 0.3  # of the wrong judgments
WORDINGS = ("short", "a bit longer", "quite a long one at last", "the longest wording of them all, by far")
PROMPT = load_prompt("judge_pairwise_small")
Rule = Callable[[list[str]], str]


def pass_rate(prompt: str) -> float:
    return P[int(unit_interval("p", prompt) * len(P))]


def judgment(call: Call) -> str:
    """Right with the prompt's pass rate; which wordings a right one prefers differs by pass rate."""
    gold = "A" if call.prompt.index("GOOD") < call.prompt.index("poor") else "B"
    draws = [unit_interval(what, call.prompt, call.seed) for what in ("right", "unparsed", "wording")]
    p = pass_rate(call.prompt)
    wording = WORDINGS[int(len(WORDINGS) * draws[2] ** (0.5 + 2 * p))]
    if draws[0] < p:
        return f"{wording} [[{gold}]]"
    return wording if draws[1] < UNPARSED else f"{wording} [[{'AB'.replace(gold, '')}]]"


@cache
def units() -> list[dict[str, Any]]:
    pairs = (
        {
            "pair_id": f"p{i:05d}",
            "instruction": f"Question {i}?",
            "chosen": f"GOOD answer {i}",
            "rejected": "poor answer",
        }
        for i in range(PAIRS)
    )
    return [unit for pair in pairs for unit in pair_units(pair)]


@cache
def judged(mode: Any, run_seed: int, samples: int = N) -> list[UnitResult]:
    program = JudgeProgram(
        PROMPT, Sampling(), mode, samples, "j", run_seed, iteration=1, stage="judgments", key=("pair_id", "order")
    )
    return run(program, Replay(judgment, turns=lambda _: 0), *units())


def training_set(results: Iterable[UnitResult]) -> list[tuple[str, str, int, str]]:
    """The balanced rows with their texts, as the training-set stage selects them."""
    names = ("pair_id", "order", "sample", "verdict", "correct", "kept")
    rows = [row for result in results for row in result.rows]
    texts = {(row["pair_id"], row["order"], row["sample"]): row["text"] for row in rows}
    chosen = select((Sample(**{name: row[name] for name in names}) for row in rows), run_seed=1, iteration=1).rows
    return [(s.pair_id, s.order, s.sample, texts[s.pair_id, s.order, s.sample]) for s in chosen]


def test_both_modes_give_the_same_training_set() -> None:
    until, everything = judged("until_correct", 1), judged("all", 1)
    assert len(until) == len(everything) == 2 * PAIRS
    rows = training_set(until)
    assert rows == training_set(everything)
    letters = Counter(order for _, order, _, _ in rows)
    assert letters["chosen_first"] == letters["rejected_first"] > 700
    assert max(sample for _, _, sample, _ in rows) == N - 1, "also late samples are kept"
    verdicts = Counter(row["verdict"] for result in everything for row in result.rows)
    assert min(verdicts["A"], verdicts["B"], verdicts[None]) > 2000
    for short, full in zip(until, everything, strict=True):
        drawn = len(short.rows)
        for early, late in zip(short.rows, full.rows[:drawn], strict=True):
            assert early == late, "the very same draws"
        assert not any(row["correct"] for row in short.rows[:-1]), "nothing is drawn behind a correct sample"
        assert drawn == N or short.rows[-1]["kept"]


def test_all_has_the_wrong_judgments_that_dpo_needs() -> None:
    """The contrast to the test above: preference pairs do differ, which is why they are made with `all`."""
    names = ("pair_id", "order", "sample", "verdict", "correct", "kept")
    rule = Choosing(1, 1, balance=True, recipe="dpo")
    found = [
        preferences((Sample(**{n: row[n] for n in names}) for r in judged(mode, 1) for row in r.rows), rule)
        for mode in ("until_correct", "all")
    ]
    assert len(found[1]) > 1.5 * len(found[0])


def outcomes(texts: Iterable[tuple[str, str | None]]) -> Counter[tuple[float, str]]:
    """How often each wording was kept, or the unit dropped, by pass rate; from (prompt, kept text)."""
    return Counter((pass_rate(prompt), "dropped" if text is None else text) for prompt, text in texts)


def prompts() -> list[str]:
    return [judge_messages(PROMPT, unit)[-1]["content"] for unit in units()]


def kept_until_correct(samples: int = N) -> Counter[tuple[float, str]]:
    texts = [
        next((row["text"][:-6] for row in r.rows if row["kept"]), None) for r in judged("until_correct", 1, samples)
    ]
    return outcomes(zip(prompts(), texts, strict=True))


def kept_of_all(rule: Rule | None = None) -> Counter[tuple[float, str]]:
    """The paper's rule by default: of N draws, made with other seeds, a random correct one."""
    texts: list[str | None] = []
    for result in judged("all", 2):
        correct = [row["text"][:-6] for row in result.rows if row["correct"]]
        at_random = int(unit_interval("pick", result.unit) * len(correct))
        texts.append(None if not correct else rule(correct) if rule else correct[at_random])
    return outcomes(zip(prompts(), texts, strict=True))


def p_value(first: Counter[tuple[float, str]], second: Counter[tuple[float, str]]) -> float:
    """Chi-square test of homogeneity over wordings and drops, summed over the pass rates, whose units are given."""
    statistic, freedom = 0.0, 0
    for p in sorted({p for p, _ in first | second}):
        cells = [cell for cell in sorted(first | second) if cell[0] == p and first[cell] + second[cell] >= 10]
        found = stats.chi2_contingency([[counts[cell] for cell in cells] for counts in (first, second)])
        statistic, freedom = statistic + found.statistic, freedom + found.dof
    return float(stats.chi2.sf(statistic, freedom))


def test_what_is_kept_is_distributed_as_a_random_correct_one_of_n() -> None:
    drawn = sum(len(result.rows) for result in judged("all", 2))
    assert drawn == 2 * PAIRS * N >= 20_000
    first, second = kept_until_correct(), kept_of_all()
    assert len(first) > 20, "wordings and drops of six pass rates"
    assert first != second, "other seeds"
    assert p_value(first, second) > 0.05
    # The kept fraction, by itself and against its exact value.
    dropped = [sum(n for (_, text), n in counts.items() if text == "dropped") for counts in (first, second)]
    assert p_value(*({(0.0, "dropped"): d, (0.0, "kept"): 2 * PAIRS - d} for d in dropped)) > 0.05  # type: ignore[arg-type]
    expected = sum((1 - pass_rate(prompt)) ** N for prompt in prompts())
    assert dropped == [pytest.approx(expected, rel=0.2)] * 2


def most_frequent(texts: list[str]) -> str:
    return Counter(texts).most_common(1)[0][0]


@pytest.mark.parametrize("rule", [lambda t: min(t, key=len), lambda t: max(t, key=len), most_frequent])
def test_a_rule_that_prefers_some_texts_is_told_apart(rule: Rule) -> None:
    assert p_value(kept_of_all(rule), kept_of_all()) < 1e-6
    assert p_value(kept_until_correct(), kept_of_all(rule)) < 1e-6


def test_pooling_the_draws_of_all_units_is_told_apart() -> None:
    """As many are kept, but from one pool of correct draws: easy prompts weigh more."""
    by_prompt = zip(prompts(), judged("all", 2), strict=True)
    pool = [(prompt, row["text"][:-6]) for prompt, result in by_prompt for row in result.rows if row["correct"]]
    right = kept_of_all()
    dropped = {cell: n for cell, n in right.items() if cell[1] == "dropped"}
    kept = 2 * PAIRS - sum(dropped.values())
    pooled = outcomes(pool[int(unit_interval("pool", i) * len(pool))] for i in range(kept)) + Counter(dropped)
    assert pooled.total() == right.total()
    assert p_value(pooled, right) < 1e-6


def test_giving_up_earlier_is_told_apart() -> None:
    assert p_value(kept_until_correct(8), kept_of_all()) < 1e-6


def test_tokens_are_those_of_the_formula() -> None:
    """Σ E[min(Geom(pᵢ), N)]·Lᵢ, with the mean length of a draw estimated from all N draws."""
    spent = sum(r.counters["completion_tokens"] for r in judged("until_correct", 1))
    expected = 0.0
    for prompt, full in zip(prompts(), judged("all", 2), strict=True):
        p = pass_rate(prompt)
        expected += (1 - (1 - p) ** N) / p * full.counters["completion_tokens"] / N
    assert spent == pytest.approx(expected, rel=0.05)
    assert spent < 0.4 * sum(r.counters["completion_tokens"] for r in judged("all", 1))
