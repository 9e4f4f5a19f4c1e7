"""`evaluate` in this process: what is refused before any judging, limits beside given verdicts, what is written."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from ray_app.base.verdict import both_orders
from ray_app.benchmarks import load_benchmark
from ray_app.command.evaluation import whole_judgments
from ray_app.command.judging import fingerprint_of, load_judge, voting_of
from ray_app.command.load_settings import run_command
from ray_app.command.settings import EvaluateSettings
from ray_app.evaluate import main
from ray_app.metrics.terminal_table import to_text

Run = Callable[..., tuple[int, str]]
SCRIPTED = ["--model", "scripted", "--engine.kind", "scripted"]


def pair(id: str, **fields: Any) -> dict[str, Any]:
    texts = {"instruction": f"Question {id}?", "response_a": "a fine answer", "response_b": "another", "label": "A"}
    return {"id": id, **texts, **fields}


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def both(id: str, ab: str | None = "A", ba: str | None = "B") -> dict[str, Any]:
    orders = {"ab": {"verdict": ab}, "ba": {"verdict": ba}}
    return {"id": id, "verdict": both_orders(ab, ba)[0], "orders": orders}


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command on set.jsonl: (exit code, what it said on stderr). No Ray is started, so no model runs."""

    def no_ray(*_: Any, **__: Any) -> None:
        raise AssertionError("judging was started")

    monkeypatch.setattr(ray, "init", no_ray)

    def run(*options: object, benchmark: str = "") -> tuple[int, str]:
        given = ["--benchmark", benchmark or f"set={tmp_path / 'set.jsonl'}", "--output", tmp_path / "out", *options]
        code = run_command(EvaluateSettings, main, [str(part) for part in given])
        told = capsys.readouterr().err
        if code:
            assert code == 2
            assert told.startswith("error: ")
            assert told.count("\n") == 1
        return code, told

    return run


def summary_in(tmp_path: Path, name: str = "set") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "summary.json").read_text())[name]
    return found


@pytest.mark.parametrize(
    ("other", "measured"),
    [
        (both("1"), "one verdict in each of both orders"),
        ({"id": "1", "verdict": "A"}, "one verdict on the pair, whatever its order"),
        ({"id": "1", "verdict": "A", "orders": {"ab": {"verdict": "A"}}}, "one verdict in one order"),
    ],
)
def test_runs_of_other_orders_are_compared_and_named(
    evaluate: Run, tmp_path: Path, other: dict[str, Any], measured: str
) -> None:
    lines(tmp_path / "set.jsonl", pair("1"), pair("2"))
    lines(tmp_path / "other" / "set" / "verdicts.jsonl", other, {**other, "id": "2"})
    full = lines(tmp_path / "full.jsonl", both("1"), both("2", "B", "A"))
    assert evaluate("--verdicts", full, "--compare", tmp_path / "other")[0] == 0
    compared = summary_in(tmp_path)["compared"]
    assert compared["measures"] == {"a": measured, "b": "one verdict in each of both orders"}
    assert compared["difference"]["value"] == -0.5


@pytest.mark.parametrize(
    ("summary", "parser"),
    [({"parser": "rewardbench", "cost": {}}, "rewardbench"), ({"cost": {}}, "last"), ({}, None), (None, None)],
)
def test_compare_names_the_parsers_where_they_differ(
    evaluate: Run, tmp_path: Path, summary: dict[str, Any] | None, parser: str | None
) -> None:
    """Verdicts that were given are of a parser that nobody names."""
    lines(tmp_path / "set.jsonl", pair("1"), pair("2"))
    other = tmp_path / "other" / "set"
    lines(other / "verdicts.jsonl", both("1"), both("2"))
    if summary is not None:
        (other / "summary.json").write_text(json.dumps(summary))
    assert evaluate("--verdicts", other / "verdicts.jsonl", "--compare", tmp_path / "other")[0] == 0
    found = summary_in(tmp_path)
    assert found["compared"]["parsers"] == {"a": parser, "b": None}
    shown = to_text(found, width=400)
    assert ("different parsers" in shown) == (parser is not None)
    assert parser is None or f"the other run's by {parser}" in shown


def test_compare_on_other_rows_is_refused_before_judging(evaluate: Run, tmp_path: Path) -> None:
    lines(tmp_path / "set.jsonl", pair("1"), pair("2"))
    lines(tmp_path / "other" / "set" / "verdicts.jsonl", both("1"), both("3"))
    _, told = evaluate(*SCRIPTED, "--compare", tmp_path / "other")
    assert "--compare: " in told
    assert "1 missing id (first: 2), 1 unknown id (first: 3)" in told
    assert not (tmp_path / "out").exists()


def test_compare_of_one_order_with_another_seed_is_refused_before_judging(evaluate: Run, tmp_path: Path) -> None:
    ids = [str(i) for i in range(20)]
    lines(tmp_path / "set.jsonl", *map(pair, ids))
    lines(
        tmp_path / "other" / "set" / "verdicts.jsonl", *({**both(i), "orders": {"ab": {"verdict": "A"}}} for i in ids)
    )
    _, told = evaluate(*SCRIPTED, "--protocol", "official", "--compare", tmp_path / "other")
    assert "lacks the one order that --protocol official asks for with this seed" in told
    assert not (tmp_path / "out").exists()


def test_given_verdicts_are_compared_like_with_like(evaluate: Run, tmp_path: Path) -> None:
    lines(tmp_path / "set.jsonl", pair("1"), pair("2"), pair("3", label="C"))
    lines(tmp_path / "other" / "set" / "verdicts.jsonl", both("1"), both("2", "B", "A"))
    full = lines(tmp_path / "full.jsonl", both("1"), both("2"))
    assert evaluate("--verdicts", full, "--compare", tmp_path / "other")[0] == 0
    compared = summary_in(tmp_path)["compared"]
    assert compared["n"] == 3
    assert compared["difference"]["value"] == pytest.approx(1 / 3)


def test_a_limit_takes_the_first_rows_and_knows_the_ids_of_the_others(evaluate: Run, tmp_path: Path) -> None:
    lines(tmp_path / "set.jsonl", *(pair(str(i), label="C" if i in (1, 5) else "A") for i in range(6)))
    given = [both(str(i)) for i in (5, 4, 3, 2, 0)]
    lines(tmp_path / "other" / "set" / "verdicts.jsonl", *given)
    verdicts = lines(tmp_path / "v.jsonl", *given)
    assert evaluate("--verdicts", verdicts, "--limit", 3, "--compare", tmp_path / "other")[0] == 0
    summary = summary_in(tmp_path)
    assert summary["n"] == summary["n_in"] == summary["compared"]["n"] == 3
    assert [one["id"] for one in read(tmp_path / "out" / "set" / "verdicts.jsonl")] == ["0", "2", "1"]

    lines(verdicts, *given[1:-1], both("6"), both("7"))
    _, told = evaluate("--verdicts", verdicts, "--limit", 3)
    assert "1 missing id (first: 0), 2 unknown ids (first: 6)" in told


def test_a_limit_beside_answers_to_best_of_rows(evaluate: Run, tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "fixtures" / "benchmarks" / "rewardbench2.jsonl"
    names = ["0", "1", "2", "4", "ref:0", "tied:0", "ref:1", "tied:1"]
    verdicts = lines(tmp_path / "v.jsonl", *({"id": name, "choice": 0} for name in names))
    assert evaluate("--verdicts", verdicts, "--limit", 4, benchmark=f"rewardbench2={source}")[0] == 0
    summary = summary_in(tmp_path, "rewardbench2")
    assert (summary["n"], summary["quarantined"]) == (4, {"empty_response": 1})
    written = read(tmp_path / "out" / "rewardbench2" / "verdicts.jsonl")
    assert written[:3] == [{"id": name, "choice": 0} for name in names[:3]]
    assert written[3] == {"id": "3", "choice": None, "quarantined": "empty_response"}


def test_columns_that_no_verdict_file_declares_are_not_read(evaluate: Run, tmp_path: Path) -> None:
    lines(tmp_path / "set.jsonl", pair("1"), pair("2"), pair("3", response_a=" "))
    order = {"verdict": "A", "votes": {"A": 2, "B": 1, "unparsed": 0}, "made": datetime.datetime(2024, 1, 1)}
    rows = [
        {"id": "1", "verdict": None, "inconsistent": True, "orders": {"ab": order, "ba": order}, "raw": b"\xff"},
        {"id": "2", "verdict": None, "orders": None, "raw": None, "quarantined": "prompt_too_long"},
    ]
    table = pa.Table.from_pylist(
        rows, schema=pa.Table.from_pylist(rows[:1]).schema.append(pa.field("quarantined", pa.string()))
    )
    times = pa.array([2**50, 5], pa.timestamp("ms"))  # no type of Python holds the first
    pq.write_table(table.append_column("at", times), tmp_path / "v.parquet")
    assert evaluate("--verdicts", tmp_path / "v.parquet")[0] == 0
    votes = {"verdict": "A", "votes": {"A": 2, "B": 1, "unparsed": 0}}
    assert read(tmp_path / "out" / "set" / "verdicts.jsonl") == [
        {"id": "1", "verdict": None, "inconsistent": True, "orders": {"ab": votes, "ba": votes}},
        {"id": "2", "verdict": None, "inconsistent": False, "quarantined": "prompt_too_long"},
        {"id": "3", "verdict": None, "inconsistent": False, "quarantined": "empty_response_a"},
    ]
    summary = summary_in(tmp_path)
    assert summary["n"] == 3
    assert summary["quarantined"] == {"prompt_too_long": 1, "empty_response_a": 1}


def test_two_benchmarks_of_one_name_are_refused(evaluate: Run, tmp_path: Path) -> None:
    lines(tmp_path / "set.jsonl", pair("1"))
    _, told = evaluate(*SCRIPTED, "--benchmark", f"set={tmp_path / 'set.jsonl'}")
    assert "two benchmarks are called set" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--price.gpu_hour", 2, "--engine.device", "cpu"], "served by engines on processors"),
        (["--price.prompt_tokens", 2, "--price.completion_tokens", 8], "is the price of an endpoint's tokens"),
        (["--price.prompt_tokens", 2], "priced together"),
        (["--price.gpu_hour", -1], "greater than or equal to 0"),
    ],
)
def test_a_price_of_what_is_not_used_is_refused(
    evaluate: Run, tmp_path: Path, options: list[object], told: str
) -> None:
    lines(tmp_path / "set.jsonl", pair("1"))
    code, said = evaluate("--model", "somewhere/model", *options)
    assert code == 2
    assert told in said


def test_given_verdicts_have_no_price_and_no_cost(evaluate: Run, tmp_path: Path) -> None:
    lines(tmp_path / "set.jsonl", pair("1"))
    given = lines(tmp_path / "verdicts.jsonl", both("1"))
    code, told = evaluate("--verdicts", given, "--price.gpu_hour", 2)
    assert code == 2
    assert "given verdicts say nothing" in told
    assert evaluate("--verdicts", given)[0] == 0
    assert "cost" not in summary_in(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--parser", "rewardbench", "--stop_after_verdict"], "reads whole judgments"),
        (["--parser", "rewardbench", "--mode", "pointwise"], "gives scores"),
        (["--parser", "strict"], "parser"),
    ],
)
def test_a_parser_that_cannot_be_used_is_refused(
    evaluate: Run, tmp_path: Path, options: list[object], told: str
) -> None:
    lines(tmp_path / "set.jsonl", pair("1"))
    code, said = evaluate(*SCRIPTED, *options)
    assert code == 2
    assert told in said


def test_a_parser_of_two_letters_reads_no_row_of_four(evaluate: Run) -> None:
    four = Path(__file__).parents[2] / "fixtures" / "benchmarks" / "rewardbench2.jsonl"
    code, said = evaluate(*SCRIPTED, "--parser", "self_taught", benchmark=f"rewardbench2={four}")
    assert code == 2
    assert "rewardbench2 shows four" in said


def test_given_verdicts_are_not_parsed_again(evaluate: Run, tmp_path: Path) -> None:
    lines(tmp_path / "set.jsonl", pair("1"))
    code, said = evaluate("--verdicts", lines(tmp_path / "v.jsonl", both("1")), "--parser", "rewardbench")
    assert code == 2
    assert "read already" in said


def test_a_named_parser_makes_another_folder_of_votes_and_sees_all_of_a_judgment(tmp_path: Path) -> None:
    path = lines(tmp_path / "set.jsonl", pair("1"))
    common: dict[str, Any] = {"model": "scripted", "output": "out", "engine": {"model": "", "kind": "scripted"}}
    default, strict = EvaluateSettings(**common), EvaluateSettings(**common, parser="rewardbench")
    benchmark = load_benchmark(f"set={path}")
    covered = {}
    for settings in (default, strict):
        used = whole_judgments(settings, [benchmark])
        judge = load_judge(used)
        covered[used.parser] = fingerprint_of(used, benchmark, judge, "both_orders").settings
        assert judge.stop_after_verdict == (used.parser == "last")
        assert voting_of(used).parser == used.parser
    assert "parser" not in covered["last"], "folders from before there was a choice go on"
    assert covered["rewardbench"]["parser"] == "rewardbench"


def test_human_scores_need_a_pointwise_judge_and_take_given_ratings(evaluate: Run, tmp_path: Path) -> None:
    rows = [{"id": str(i), "instruction": f"q{i}", "response": "x" * (i + 1), "score": i} for i in range(5)]
    spec = f"rated={lines(tmp_path / 'people.jsonl', *rows)}"
    code, said = evaluate(*SCRIPTED, benchmark=spec)
    assert code == 2
    assert "people has single responses with human scores: they need --mode pointwise" in said
    code, said = evaluate(*SCRIPTED, "--mode", "pointwise", "--compare", tmp_path, benchmark=spec)
    assert code == 2
    assert "no response pairs" in said
    given = lines(tmp_path / "v.jsonl", *({"id": str(i), "rating": 2 * i} for i in range(5)))
    assert evaluate("--verdicts", given, benchmark=spec)[0] == 0
    assert summary_in(tmp_path, "people")["overall"]["pearson"]["value"] == pytest.approx(1)
