"""Verdict files: joined by id, one-line errors with counts, round trips, and scoring without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.base.verdict import Count, both_orders, count
from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.errors import InputError
from ray_app.metrics.outcome import official_order
from ray_app.metrics.verdict_file import join, read_verdicts, score_verdict_file, write_verdicts

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"
IDS = ["p1", "p2", "p3", "p4", "p5"]
VOTES = st.lists(st.sampled_from(["A", "B", None]), min_size=1, max_size=5)


@pytest.fixture
def benchmark() -> Benchmark:
    return load_benchmark(str(FIXTURES / "pairwise.jsonl"))


def write(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


def verdict_record(identity: str, orders: dict[str, Count], k: int) -> dict[str, Any]:
    """A line as `judge` and `evaluate` write it (docs/evaluation.md)."""
    verdict, inconsistent = both_orders(orders["ab"].verdict, orders["ba"].verdict)
    return {
        "id": identity,
        "verdict": verdict,
        "inconsistent": inconsistent,
        "orders": {
            name: {
                "verdict": drawn.verdict,
                "votes": {"A": drawn.a, "B": drawn.b, "unparsed": drawn.unparsed},
                **({"partial": True} if 0 < drawn.drawn < k else {}),
            }
            for name, drawn in orders.items()
        },
    }


def test_id_and_verdict_alone_are_enough(benchmark: Benchmark, tmp_path: Path) -> None:
    # Gold is A, B, A, B, B.
    verdicts = ["A", "A", None, "B", "B"]
    records = [{"id": i, "verdict": v} for i, v in zip(IDS, verdicts, strict=True)]
    summary = score_verdict_file(benchmark, write(tmp_path / "v.jsonl", *records[::-1]), resamples=50)
    assert summary["overall"]["accuracy"]["value"] == pytest.approx(3 / 5)
    assert summary["overall"]["accuracy_unparsed_half"]["value"] == pytest.approx(3.5 / 5)
    assert "first_position_rate" not in summary["overall"]
    assert summary["protocol"] == "given_verdicts"


def test_orders_and_votes_are_used(benchmark: Benchmark, tmp_path: Path) -> None:
    drawn = {"ab": count(["A", "A", None]), "ba": count(["B", "B", "A"])}
    path = str(tmp_path / "out" / "v.jsonl")
    assert write_verdicts(path, (verdict_record(i, drawn, 3) for i in IDS)) == 5
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["v.jsonl"]
    summary = score_verdict_file(benchmark, path, resamples=50)
    # Verdict A in both orders: right on the two rows with gold A.
    assert summary["overall"]["vote_accuracy"]["value"] == pytest.approx(2 / 5)
    assert summary["overall"]["position_consistent_accuracy"]["value"] == pytest.approx(2 / 5)
    assert summary["votes"] == 3
    assert summary["calibration"]["ece"]["n"] == 10


def test_the_official_protocol_scores_the_seeded_order_alone(benchmark: Benchmark, tmp_path: Path) -> None:
    records = [{"id": i, "verdict": None, "orders": {"ab": {"verdict": "A"}, "ba": {"verdict": None}}} for i in IDS]
    path = write(tmp_path / "v.jsonl", *records)
    rows = join(benchmark, read_verdicts(path), "official", 5)
    assert [row.orders for row in rows] == [(official_order(5, i),) for i in IDS]
    summary = score_verdict_file(benchmark, path, seed=5, protocol="official", resamples=50)
    assert summary["protocol"] == "official"
    assert summary["overall"]["accuracy"]["n"] == 5


def test_missing_and_unknown_ids_are_errors_with_counts(benchmark: Benchmark, tmp_path: Path) -> None:
    path = write(tmp_path / "v.jsonl", {"id": "p1", "verdict": "A"}, {"id": "zz", "verdict": "A"})
    with pytest.raises(InputError) as caught:
        score_verdict_file(benchmark, path)
    assert "4 missing ids (first: p2), 1 unknown id (first: zz)" in str(caught.value)


def test_quarantined_rows_may_be_absent_and_still_count(tmp_path: Path) -> None:
    lines = (FIXTURES / "pairwise.jsonl").read_text().splitlines()
    bad = lines[0].replace('"p1"', '"bad"').replace('"A"', '"C"')
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, bad]))
    benchmark = load_benchmark(str(tmp_path / "a.jsonl"))
    records = [{"id": i, "verdict": "A"} for i in IDS]
    for given_records in (records, [*records, {"id": "bad", "verdict": None}]):
        summary = score_verdict_file(benchmark, write(tmp_path / "v.jsonl", *given_records), resamples=20)
        assert (summary["n"], summary["overall"]["accuracy"]["value"]) == (6, pytest.approx(2 / 6))
        assert summary["quarantined"] == {"bad_label": 1}


@pytest.mark.parametrize(
    ("record", "needle"),
    [
        ({"id": "p2", "verdict": "C"}, "line 2 verdict 'C' is neither A, B nor null"),
        ({"id": "p2", "verdict": 1}, "line 2 column 'verdict' holds int"),
        ({"id": "p1", "verdict": "A"}, "line 2: id 'p1' occurs twice"),
        ({"id": "p2"}, "line 2 has no column 'verdict'"),
        ({"id": "p2", "verdict": "A", "orders": {"xy": {}}}, "no order 'xy'"),
        ({"id": "p2", "verdict": "A", "orders": {"ab": {"verdict": "A", "votes": {"A": -1}}}}, "not counts"),
        (
            {"id": "p2", "verdict": "A", "orders": {"ab": {"verdict": "A", "votes": {"B": 2}}}},
            "not the majority",
        ),
        (
            {"id": "p2", "verdict": "A", "orders": {"ab": {"verdict": "A"}, "ba": {"verdict": "A"}}},
            "contradicts its two orders",
        ),
    ],
)
def test_faults_name_the_line(tmp_path: Path, record: dict[str, Any], needle: str) -> None:
    path = write(tmp_path / "v.jsonl", {"id": "p1", "verdict": "A"}, record)
    with pytest.raises(InputError) as caught:
        read_verdicts(path)
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=40)
@given(st.lists(st.tuples(VOTES, VOTES), min_size=1, max_size=6))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[Any, Any]]) -> None:
    path = str(tmp_path_factory.mktemp("v") / "v.jsonl")
    tallies = {f"row {i}": {"ab": count(ab), "ba": count(ba)} for i, (ab, ba) in enumerate(drawn)}
    write_verdicts(path, (verdict_record(i, orders, 5) for i, orders in tallies.items()))
    found = read_verdicts(path)
    assert found.keys() == tallies.keys()
    for i, orders in tallies.items():
        assert {name: order.votes for name, order in found[i].orders.items()} == orders
        assert found[i].verdict == both_orders(orders["ab"].verdict, orders["ba"].verdict)[0]
        assert found[i].orders["ab"].partial == (0 < orders["ab"].drawn < 5)


def test_best_of_four_files(tmp_path: Path) -> None:
    benchmark = load_benchmark(f"rewardbench2={FIXTURES / 'rewardbench2.jsonl'}", limit=3)
    good = [{"id": "0", "choice": 0}, {"id": "1", "choice": None}, {"id": "2", "ratings": [3, 3, None, 1]}]
    summary = score_verdict_file(benchmark, write(tmp_path / "v.jsonl", *good), resamples=20)
    values = {name: found["value"] for name, found in summary["subsets"].items()}
    assert values == {"Factuality": 1, "Math": 0.25, "Precise IF": 0.5}
    assert summary["overall"]["score"]["value"] is None
    for bad, needle in (
        ({"id": "0", "choice": 4}, "outside 0 to 3"),
        ({"id": "0", "ratings": [1]}, "1 ratings for 4"),
        ({"id": "0", "ratings": ["x"] * 4}, "not numbers"),
        ({"id": "0", "ratings": [1, 2, 3, 10**400]}, "not numbers"),
        ({"id": "0", "ratings": [1, 2, 3, float("inf")]}, "not numbers"),
        ({"id": "0"}, "neither column"),
    ):
        with pytest.raises(InputError, match=needle):
            score_verdict_file(benchmark, write(tmp_path / "b.jsonl", bad, *good[1:]))


def test_a_folder_is_no_verdict_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        write_verdicts(str(tmp_path), [])
    assert not list(tmp_path.iterdir())
