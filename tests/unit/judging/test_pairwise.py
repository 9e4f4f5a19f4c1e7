"""Units, tallies and records of judged sets; rows that show the same texts are judged once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.base.schema import AB, BA, VOTES, PairwiseRow, unit_id
from ray_app.base.verdict import Count, count
from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.judging.pairwise import KEY, UNITS, quarantined_ids, results_of, tallies_of, units_of, verdict_records
from ray_app.judging.sharing import spool
from ray_app.metrics.outcome import asked_orders, outcomes_of
from ray_app.run.shards import ShardWriter
from ray_app.run.storage import list_files, read_parquet

MTBENCH = Path(__file__).resolve().parents[2] / "fixtures" / "benchmarks" / "mtbench_human.jsonl"


def row(id: str, text: str = "", label: Any = "A") -> PairwiseRow:
    return PairwiseRow(id, "", f"question {text or id}", "answer a", "answer b", label, "g")


def turned(id: str, text: str = "", label: Any = "B") -> PairwiseRow:
    """The same row with the responses exchanged, and so the label."""
    return PairwiseRow(id, "", f"question {text or id}", "answer b", "answer a", label, "g")


def write(directory: Path, votes: dict[tuple[str, str], str], lost: dict[str, str] | None = None) -> str:
    """Votes by (id, order), `-` for unparsed; quarantined units by name."""
    empty = {name: None for name in VOTES.names}
    with ShardWriter(str(directory), VOTES) as writer:
        for (identity, order), letters in votes.items():
            writer.add(
                [
                    {**empty, "benchmark": "set", "id": identity, "order": order, "sample": j, "verdict": letter}
                    for j, letter in enumerate(None if letter == "-" else letter for letter in letters)
                ]
            )
        for unit, reason in (lost or {}).items():
            writer.quarantine([{"id": unit, "stage": "evaluation", "reason": reason, "detail": ""}])
    return str(directory)


def names(units: Any) -> list[str]:
    return [unit_id(unit, KEY) for unit in units]


def test_both_orders_of_every_row_or_those_asked() -> None:
    rows = [row("1"), row("2", label="B")]
    units = list(units_of("set", rows))
    assert names(units) == ["set:1:ab", "set:1:ba", "set:2:ab", "set:2:ba"]
    assert [unit["gold"] for unit in units] == ["A", "B", "B", "A"]
    assert [(unit["first"], unit["second"]) for unit in units[:2]] == [
        ("answer a", "answer b"),
        ("answer b", "answer a"),
    ]
    assert names(units_of("set", rows, {"1": (BA,), "2": (AB,)})) == ["set:1:ba", "set:2:ab"]


def test_rows_with_the_same_texts_are_judged_once() -> None:
    rows = [row("1", "x"), row("2"), row("3", "x", "B"), row("4", "x")]
    assert names(units_of("set", rows)) == ["set:1:ab", "set:1:ba", "set:2:ab", "set:2:ba"]
    other = [row("1", "x"), turned("2", "x"), PairwiseRow("3", "", "question x", "answer b", "answer c", "B", "g")]
    assert names(units_of("set", other)) == ["set:1:ab", "set:1:ba", "set:3:ab", "set:3:ba"]


def test_every_asked_order_of_the_same_texts_is_judged() -> None:
    """The official protocol asks one order, which differs by id."""
    rows = [row("1", "x"), row("2", "x", "B"), row("3", "x"), row("4")]
    orders = {"1": (BA,), "2": (AB,), "3": (BA,), "4": (AB,)}
    units = list(units_of("set", rows, orders))
    assert names(units) == ["set:1:ba", "set:1:ab", "set:4:ab"]
    assert [unit["gold"] for unit in units] == ["B", "A", "A"], "the label of the row whose id it is"


def test_an_order_that_only_a_turned_row_asks_for_is_judged_as_the_source_shows_it() -> None:
    units = list(units_of("set", [row("1", "x"), turned("2", "x")], {"1": (AB,), "2": (AB,)}))
    assert names(units) == ["set:1:ab", "set:1:ba"]
    assert [(unit["first"], unit["gold"]) for unit in units] == [("answer a", "A"), ("answer b", "B")]
    same = units_of("set", [row("1", "x"), turned("2", "x")], {"1": (AB,), "2": (BA,)})
    assert names(same) == ["set:1:ab"], "both show answer a first"


def test_votes_of_a_turned_row_are_in_its_own_arrangement(tmp_path: Path) -> None:
    rows = [row("1", "x"), turned("2", "x"), turned("3", "x", "A")]
    directory = write(tmp_path, {("1", AB): "AAB", ("1", BA): "B--"})
    answers = results_of(directory, rows)
    tallies, lost = answers.of, answers.lost
    assert tallies["1"] == {AB: Count(2, 1), BA: Count(0, 1, 2)}
    assert tallies["2"] == tallies["3"] == {AB: Count(0, 1, 2), BA: Count(2, 1)}
    verdicts = [record["verdict"] for record in verdict_records(["1", "2", "3"], tallies, 3, lost)]
    assert verdicts == ["A", "B", "B"], "answer a, whatever it is called"
    benchmark = Benchmark("set", rows, 3)
    assert [o.score() for o in outcomes_of(benchmark, tallies, votes=3)] == [1, 1, 0]


SIDES = st.tuples(st.sampled_from(["q", "r"]), st.sampled_from("xyz"), st.sampled_from("xyz"))


@settings(max_examples=60)
@given(st.lists(SIDES, min_size=1, max_size=8), st.sampled_from(["both_orders", "official"]))
def test_shared_votes_are_those_that_each_row_would_get(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str, str]], protocol: Any
) -> None:
    """A judge whose verdict is a function of the prompt."""

    def judge(instruction: str, first: str, second: str) -> str:
        return "AB-"[(ord(instruction) + 3 * ord(first) + 5 * ord(second)) % 3]

    rows = [PairwiseRow(str(i), "", q, a, b, "A", q) for i, (q, a, b) in enumerate(texts)]
    orders = {r.id: asked_orders(protocol, 0, r.id) for r in rows}
    units = list(units_of("set", rows, orders))
    shown = [(u["instruction"], u["first"], u["second"]) for u in units if u["first"] != u["second"]]
    assert len(shown) == len(set(shown)), "no prompt twice"
    votes = {(u["id"], u["order"]): judge(u["instruction"], u["first"], u["second"]) for u in units}
    answers = results_of(write(tmp_path_factory.mktemp("v"), votes), rows, orders)
    tallies = answers.of
    for i, (q, a, b) in enumerate(texts):
        own = {AB: judge(q, a, b), BA: judge(q, b, a)}
        wanted = {order: count([None if own[order] == "-" else own[order]]) for order in orders[str(i)]}
        assert tallies[str(i)] == wanted


def test_their_votes_are_shared(tmp_path: Path) -> None:
    rows = [row("1", "x"), row("2"), row("3", "x", "B")]
    directory = write(tmp_path, {("1", AB): "AAB", ("1", BA): "B--", ("2", AB): "B", ("2", BA): "A"})
    answers = results_of(directory, rows)
    tallies, lost = answers.of, answers.lost
    assert tallies["3"] == tallies["1"] == {AB: Count(2, 1), BA: Count(0, 1, 2)}
    assert tallies["2"] == tallies_of(directory)["2"] == {AB: Count(0, 1), BA: Count(1)}
    assert lost == {}
    records = list(verdict_records(["1", "2", "3"], tallies, 3, lost))
    assert [record["verdict"] for record in records] == ["A", "B", "A"]
    assert records[0]["orders"] == records[2]["orders"]


def test_a_row_has_the_orders_it_asked_for(tmp_path: Path) -> None:
    rows = [row("1", "x"), row("2", "x")]
    directory = write(tmp_path, {("1", BA): "B", ("1", AB): "A"})
    answers = results_of(directory, rows, {"1": (BA,), "2": (AB,)})
    tallies = answers.of
    assert tallies == {"1": {BA: Count(0, 1)}, "2": {AB: Count(1)}}


def test_quarantine_is_shared_too_and_unknown_ids_stay_visible(tmp_path: Path) -> None:
    rows = [row("a:b", "x"), row("2"), row("3", "x")]
    lost = {"set:a:b:ab": "prompt_too_long", "set:a:b:ba": "prompt_too_long"}
    directory = write(tmp_path, {("2", AB): "A", ("2", BA): "B", ("stray", AB): "A"}, lost)
    answers = results_of(directory, rows)
    tallies, found = answers.of, answers.lost
    assert found == {"a:b": "prompt_too_long", "3": "prompt_too_long"}
    assert quarantined_ids(directory) == {"a:b": "prompt_too_long"}
    assert set(tallies) == {"2", "stray"}
    records = list(verdict_records([r.id for r in rows], tallies, 1, found))
    assert [(r["verdict"], r.get("quarantined")) for r in records] == [
        (None, "prompt_too_long"),
        ("A", None),
        (None, "prompt_too_long"),
    ]


@pytest.mark.parametrize("protocol", ["both_orders", "official"])
def test_mtbench_judges_a_pair_once_and_scores_every_human(tmp_path: Path, protocol: Any) -> None:
    benchmark = load_benchmark(f"mtbench_human={MTBENCH}")
    orders = {r.id: asked_orders(protocol, 0, r.id) for r in benchmark.rows}
    units = list(units_of("set", benchmark.rows, orders))
    everyone = sum(map(len, orders.values()))
    assert len(units) == len({(u["instruction"], u["first"], u["second"]) for u in units}) < everyone
    directory = write(tmp_path, {(u["id"], u["order"]): "A" if u["order"] == AB else "B" for u in units})
    answers = results_of(directory, benchmark.rows, orders)
    tallies, lost = answers.of, answers.lost
    outcomes = outcomes_of(benchmark, tallies, protocol=protocol, quarantined=lost)
    assert [o.score() for o in outcomes if o.label] == [float(r.label == "A") for r in benchmark.rows]
    assert len(outcomes) == benchmark.n


def test_units_are_spooled_in_order_and_again_the_same(tmp_path: Path) -> None:
    rows = [row(f"{i:03d}") for i in range(150)]
    assert spool(units_of("set", rows), str(tmp_path), UNITS) == 300
    files = list_files(str(tmp_path), "shard-*.parquet")
    before = [Path(file).read_bytes() for file in files]
    table = pa.concat_tables([read_parquet(file) for file in files])
    assert table.schema == UNITS
    assert names(table.to_pylist()) == names(units_of("set", rows))
    spool(units_of("set", rows), str(tmp_path), UNITS)
    assert [Path(file).read_bytes() for file in files] == before


def test_a_record_of_one_order_holds_that_order_and_its_verdict() -> None:
    """Under the official protocol; a verdict in `ba` is turned, so that the file scores the same anywhere."""
    tallies = {"1": {"ab": count(["A"])}, "2": {"ba": count(["A"])}}
    records = list(verdict_records(["1", "2"], tallies, 1, {}, {"1": ("ab",), "2": ("ba",)}))
    assert [r["verdict"] for r in records] == ["A", "B"]
    assert [list(r["orders"]) for r in records] == [["ab"], ["ba"]]
