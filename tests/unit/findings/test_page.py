"""report.html: whole, self-contained, and harmless whatever a model wrote."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app import report
from ray_app.errors import InputError
from ray_app.findings import gather, judges, page
from ray_app.findings.gather import look, update
from ray_app.findings.paging import page_of, tables_of
from ray_app.findings.reading import OF_AN_ALARM, alarmed_at, fitting, judge_prompt, readable, totals
from ray_app.findings.run_tables import RunTables
from ray_app.findings.samples import Place, identity_of
from ray_app.findings.samples import sample as sample_of
from ray_app.findings.settings import AlarmSettings
from ray_app.loop.config import IterateSettings
from ray_app.loop.reporting import default_settings, write_report

Runs = Callable[[str], str]


def element(text: str, name: str) -> str:
    found = re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found
    return found.group(1)


@pytest.fixture(scope="module")
def text(runs: Runs) -> str:
    return Path(write_report(runs("pairwise"))).read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(text: str) -> None:
    assert len(text) < 5_000_000
    outside = re.findall(
        r"""(?:src|href)=["']([^"'#][^"']*)""", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    )
    assert outside == ["data:,"]
    script = gzip.decompress(base64.b64decode(element(text, "plotly"))).decode()
    assert "Plotly" in script


def test_it_answers_what_a_newcomer_asks(text: str) -> None:
    for question in ("Did it learn?", "Can I trust it?", "What was thrown away, and why", "Where did the time go?"):
        assert question in text
    assert "after 1 iteration the judge" in text
    assert "gate" not in re.findall(r"\{\{|\}\}|\{%", text)


def test_charts_and_samples_are_in_it(text: str) -> None:
    data = json.loads(element(text, "data"))
    titles = {chart["title"] for chart in data["charts"]}
    assert {"Accuracy by iteration", "Rejection sampling", "Training loss", "Checkpoint selection"} <= titles
    assert all(trace["x"] and len(trace["x"]) == len(trace["y"]) for chart in data["charts"] for trace in chart["data"])
    kinds = {sample["kind"] for sample in data["samples"]}
    assert {"instruction", "pair", "judgment", "training row", "evaluation"} <= kinds
    judged = [sample for sample in data["samples"] if sample["kind"] == "judgment"]
    assert {"kept", "dropped"} <= {tag for sample in judged for tag in sample["tags"]}


def test_a_judgment_is_shown_with_its_pair(runs: Runs, text: str) -> None:
    data = json.loads(element(text, "data"))
    texts = {row["pair_id"]: row for row in RunTables(runs("pairwise")).pairs()}
    judged = [sample for sample in data["samples"] if sample["kind"] == "judgment"]
    assert judged
    for identity, _ in (sample["pair"] for sample in judged):
        fields = dict(data["pairs"][identity])
        assert fields["chosen"] == texts[identity]["chosen"]
        assert fields["rejected"] == texts[identity]["rejected"]


def test_the_same_run_gives_the_same_page(runs: Runs, text: str) -> None:
    assert Path(write_report(runs("pairwise"))).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", ["pointwise", "dpo", "refresh", "one_call"])
def test_every_kind_of_run_has_a_page(runs: Runs, name: str) -> None:
    written = Path(write_report(runs(name))).read_text(encoding="utf-8")
    data = json.loads(element(written, "data"))
    assert data["samples"]
    assert data["charts"]


def test_a_run_that_trains_twice_is_told_of_its_last_judge(then_dpo: str) -> None:
    """Its verdict, alarms, figures and samples are of both trainings, each named; its judge is that of DPO."""
    tables = RunTables(then_dpo)
    strict = AlarmSettings(min_rows=1, unparsed=0.0, first_position=0.0)
    alarms = look(tables, strict)
    found = {(alarm["name"], alarm["phase"]) for alarm in alarms}
    assert {("unparsed_judgments", ""), ("unparsed_judgments", "dpo"), ("position_bias", "dpo")} <= found
    assert ("position_bias", "") not in found, "the SFT judge does not go on"
    written = page.render(tables, alarms, {})
    assert "the judge (SFT, then DPO)" in written
    assert '<span class="tag">iteration 1, DPO</span>' in written
    data = json.loads(element(written, "data"))
    figures = {chart["title"]: chart for chart in data["charts"]}
    assert figures["Accuracy by iteration"]["data"][0]["x"] == [0, 1, "1 DPO"]
    assert figures["Accuracy by iteration"]["layout"]["xaxis"]["categoryarray"] == ["0", "1", "1 DPO"]
    assert [trace["name"] for trace in figures["Preference loss (DPO)"]["data"]] == ["iteration 1 DPO"]
    names = [identity_of(sample) for sample in data["samples"]]
    assert len(names) == len(set(names))
    assert len({name[:2] for name in names}) < len(names), "both trainings have judgments of the same ids"
    reasons = [why for s in data["samples"] if "DPO" in s["tags"] and s["kind"] == "judgment" for why in s["why"]]
    assert "alarm: unparsed_judgments" in reasons
    assert {"dpo_judgments 1", "dpo_evaluation 1 validation"} <= set(tables_of(tables))
    assert page_of(tables, "dpo_judgments 1", 0, 3)


def test_other_judges_stand_in_the_table(runs: Runs, text: str) -> None:
    """The recorded run's first judge, by its model where the run recorded that."""
    line = next(line for line in RunTables(runs("pairwise")).metrics() if line["stage"] == "first_judge_evaluation")
    cost = {"per_1000": {"seconds": 2.5, "prompt_tokens": 123456.0, "price": None}, "notes": ["a note"]}
    made = judges.table([{**line, "extra": {**line["extra"], "judge": "mixtral"}}], {judges.place_of(line): cost})
    assert (made["rows"][0]["judge"], made["rows"][0]["set"]) == ("the first judge, mixtral", "validation")
    assert made["columns"][-2:] == ["seconds", "prompt tokens"]
    assert made["rows"][0]["cells"][-2:] == ["2.5", "123,456"]
    assert made["notes"] == ["a note"]
    assert "the first judge, first" in text, "the name of its model, from the settings"
    assert judges.table([line], {})["rows"][0]["judge"] == "the first judge, whose model was not recorded"


def test_the_table_of_judges_has_every_control() -> None:
    figure = {"value": 0.6, "n": 40, "low": 0.5, "high": 0.7}
    apart = {"value": 0.08, "n": 40, "low": -0.01, "high": 0.17}
    said = {
        "explanation_words_median": 9,
        "bare_verdicts": 0.1,
        "distinct_explanations": 0.8,
        "telling_explanations": 0.5,
        "contradicting_explanations": 0.75,
    }
    controls = ("instruction_sensitivity", "mirrored_accuracy", "position_consistent_accuracy", "unparsed_rate")
    headline = {"accuracy": figure, "beyond_longer": apart, **dict.fromkeys((*controls, "length_baseline"), figure)}
    extra = {"set": "validation", "headline": headline, "explanations": said}
    trained = {"stage": "training", "iteration": 1, "extra": {"candidates": [1, 2]}}
    made = judges.table([trained, {"stage": "evaluation", "iteration": 1, "extra": extra}], {})
    (row,) = made["rows"]
    assert row["set"] == "validation (selected on)"
    cells = dict(zip(made["columns"], row["cells"], strict=True))
    assert cells["changes with the instruction"] == "60 % of 40"
    for control in ("mirror too", "right in both orders", "no verdict", "always the longer"):
        assert cells[control] == "60 %"
    assert cells["above always the longer"] == "+8.0 [-1 – +17]"
    assert (cells["bare verdicts"], cells["tell the responses apart"]) == ("10 %", "50 %")
    assert cells["verdict against the explanation"] == "75 %"


def test_what_a_run_did_not_record_is_said() -> None:
    told = page.versions_of({"version": "1.2", "revision": "abc", "packages": {"ray": "2.6"}})
    assert told == "Made with version 1.2; revision abc; packages ray 2.6"
    told = page.versions_of({"revision": "abc"})
    assert told == "Made with version (the run did not record it); revision abc; packages (the run did not record it)"


def test_what_a_model_wrote_is_never_markup() -> None:
    value = {"text": "</script><script>alert(1)</script><!-- \u2028"}
    packed = page.script_json(value)
    assert "<" not in packed
    assert json.loads(packed) == value


def test_names_of_groups_are_text_in_figures() -> None:
    from ray_app.findings.charts import by_group

    groups = {name: {"value": 0.5, "n": 3} for name in ("<a href='http://x'>y</a>", "b")}
    chart = by_group([{"stage": "train_set", "iteration": 1, "extra": {"pass_rate_by_category": groups}}], "category")
    assert "<" not in "".join(chart["data"][0]["x"])


def test_rows_of_every_alarm_can_be_read(runs: Runs) -> None:
    tables = RunTables(runs("pairwise"))
    strict = AlarmSettings(min_rows=1, unparsed=0.0, first_position=0.0, meta_talk=0.0, longer=0.5)
    alarms = look(tables, strict)
    shown = readable(tables, alarms)
    for alarm in alarms:
        raised = [sample for sample in shown if f"alarm: {alarm['name']}" in sample["why"]]
        assert {sample["id"] for sample in raised} == set(alarm["rows"][:OF_AN_ALARM]), alarm


def test_an_alarm_names_no_rows_of_another_place(runs: Runs) -> None:
    alarm = {"name": "a", "iteration": 1, "phase": "", "rows": ["x", "y"], "set": ""}
    assert alarmed_at([alarm, {**alarm, "name": "b"}], Place(1)) == {i: ["alarm: a", "alarm: b"] for i in "xy"}
    assert alarmed_at([alarm], Place(2)) == alarmed_at([alarm], Place(1, "dpo")) == alarmed_at([alarm], Place()) == {}
    voted = {**alarm, "set": "test"}
    assert set(alarmed_at([voted], Place(1, "", "test"))) == {"x", "y"}
    assert alarmed_at([voted], Place(1, "", "heldout")) == alarmed_at([voted], Place(1)) == {}


def test_verdicts_of_every_judge_are_among_the_samples(runs: Runs) -> None:
    judged = [sample for sample in readable(RunTables(runs("pairwise")), []) if sample["kind"] == "evaluation"]
    assert {(sample["iteration"], sample["set"]) for sample in judged} >= {(0, "validation"), (1, "validation")}
    for sample in judged:
        fields = dict(sample["fields"])
        expected = (
            "no verdict"
            if fields["verdict"] == "unparsed"
            else "right"
            if fields["verdict"] == fields["gold"]
            else "wrong"
        )
        assert expected in sample["tags"]
    assert {"right", "wrong"} <= {tag for sample in judged for tag in sample["tags"]}


def test_what_the_run_has_of_each_kind(runs: Runs) -> None:
    tables = RunTables(runs("pairwise"))
    counts = totals(tables)
    assert counts["pair"] == len(list(tables.pairs()))
    assert counts["judgment"] == len(list(tables.judgments(1)))
    votes = [row for i in (0, 1) for name in ("validation", "heldout") for row in tables.votes(i, name)]
    wrong = [row for row in votes if row["verdict"] and not row["correct"]]
    assert counts["evaluation wrong"] >= len(wrong) > 0
    assert counts["evaluation"] >= len(votes)


def test_long_texts_are_cut_to_what_a_page_holds(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = RunTables(runs("pairwise"))
    made = sample_of("pair", "x", ["at random"], {"chosen": "é" * 9_000}, ())
    assert len(fitting(tables, [made])[0][0]["fields"][0][1]) > 4_000
    monkeypatch.setattr("ray_app.findings.reading.ROOM", 8_000)
    assert fitting(tables, [made])[0][0]["fields"][0][1].startswith("é" * 1_000 + " …")


def test_the_prompt_of_a_judgment_can_be_rebuilt(runs: Runs) -> None:
    """With the texts of its pair the template is what a training row was shown."""
    tables = RunTables(runs("pairwise"))
    row = next(tables.train_set(1))
    pair = next(pair for pair in tables.pairs() if pair["pair_id"] == row["pair_id"])
    first, second = ("chosen", "rejected") if row["order"] == "chosen_first" else ("rejected", "chosen")
    texts = {"instruction": pair["instruction"], "response_a": pair[first], "response_b": pair[second]}
    told = [
        [role, re.sub(r"\{\{ (\w+) \}\}", lambda found: texts[found[1]], text)] for role, text in judge_prompt(tables)
    ]
    assert told == [[turn["role"], turn["content"]] for turn in row["prompt"]]


def test_alarms_of_hostile_texts_are_escaped(runs: Runs) -> None:
    alarm = {"name": "few_phrasings", "iteration": 1, "message": "the commonest is '<img src=x onerror=alert(1)>'"}
    alarm |= {"advice": "a", "value": 0.1, "limit": 0.3, "n": 30, "rows": []}
    shown = page.render(RunTables(runs("pairwise")), [alarm], {}, None, [])
    assert "<img" not in shown
    assert html.escape("<img src=x") in shown


def test_settings_beside_the_defaults_and_another_run(runs: Runs) -> None:
    own, other = RunTables(runs("pairwise")).settings, RunTables(runs("dpo")).settings
    rows = {row["name"]: row for row in page.setting_rows(own, default_settings(), other)}
    assert rows["seed"] == {"name": "seed", "here": "3", "default": "0", "other": "3", "differs": False}
    assert rows["train.recipe"]["other"] == "dpo"
    assert rows["train.recipe"]["differs"]
    assert "train.zero.stage" not in rows
    alone = {row["name"]: row for row in page.setting_rows(own, default_settings(), None)}
    assert alone["first_judge.model"]["here"] == "first"
    assert "first_judge.executor" not in alone, "an engine's own default"


def test_the_defaults_are_those_of_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STE_SEED", "7")
    found = default_settings()
    assert set(found) == set(IterateSettings.model_fields)
    assert (found["seed"], found["judging"]["samples"]) == (0, 15)


def test_committed_tables_are_counted_once(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a run's end alarms are looked for in the last iteration, then in the whole run: its tables are read once."""
    monkeypatch.setattr(gather, "_KNOWN", {})
    read: list[str] = []
    rows = RunTables.rows
    monkeypatch.setattr(RunTables, "rows", lambda self, at, *a, **k: read.append(at) or rows(self, at, *a, **k))
    uri = runs("pairwise")
    first = look(RunTables(uri), AlarmSettings(min_rows=1))
    assert len(read) == len(set(read)) > 3
    assert look(RunTables(uri), AlarmSettings(min_rows=1)) == first
    assert len(read) == len(set(read))


def test_alarms_of_other_iterations_stay(tmp_path: Path, runs: Runs) -> None:
    uri = runs("pairwise")
    strict = AlarmSettings(min_rows=1, unparsed=0.0, first_position=0.0, meta_talk=0.0)
    found = update(uri, strict, [1])
    assert found
    assert {alarm.iteration for alarm in found} == {1}
    update(uri, strict, [None])
    assert [row["iteration"] for row in RunTables(uri).alarms()].count(1) == len(found)
    assert len(update(uri, AlarmSettings(min_rows=10**6), [1])) == 0
    assert look(RunTables(uri), AlarmSettings(min_rows=10**6)) == []
    (Path(uri) / "alarms.json").unlink()


def test_the_command(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marks = tmp_path / "marks.jsonl"
    mark = {"run": "pairwise", "kind": "pair", "id": "x", "mark": "good"}
    judged = {**mark, "kind": "judgment", "iteration": 2, "phase": "dpo", "set": "test"}
    marks.write_text("".join(json.dumps(line) + "\n" for line in (mark, {**mark, "run": "another"}, judged)))
    written = tmp_path / "page.html"
    settings = report.ReportSettings(run=runs("pairwise"), output=str(written), compare=runs("dpo"), marks=str(marks))
    assert report.main(settings) == 0
    assert f"report: {written}" in capsys.readouterr().out
    assert json.loads(element(written.read_text(), "data"))["marks"] == [mark, judged]
    assert '<tr class="differs">' in written.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"run": "pairwise"}',
        "[1]",
        '{"run": "r", "kind": "pair", "id": "x", "mark": "good", "iteration": "two"}',
    ],
)
def test_a_file_of_other_things_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "marks.jsonl"
    file.write_text("\n" + line)
    with pytest.raises(InputError, match=r"marks\.jsonl line 1 is no mark of a report"):
        report.read_marks(str(file), "pairwise")


def test_what_is_no_run_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no run folder: it has no run\.json"):
        RunTables(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (["runs/x"], ["--run", "runs/x"]),
        (["runs/x", "trace", "id"], ["--run", "runs/x", "--trace", "id"]),
        (["runs/x", "--compare", "runs/y"], ["--run", "runs/x", "--compare", "runs/y"]),
        (["--run", "runs/x"], ["--run", "runs/x"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_the_run_stands_first(given: list[str], options: list[str]) -> None:
    assert report.named(given) == options


def test_limits_of_a_run_that_knew_no_alarms() -> None:
    settings: dict[str, Any] = {"alarms": {"meta_talk": 0.5}}
    assert page.limits_of({}) == AlarmSettings()
    assert page.limits_of(settings).meta_talk == 0.5
