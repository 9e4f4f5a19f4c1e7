"""Records runs of scripts/gpu_evidence.sh for docs/results.md, and makes the page's tables from the records.

    PYTHONPATH=. python benchmarks/evidence.py record RUN … --label h200 --revision COMMIT --machine "2 NVIDIA H200" \
        --short path/of/data=DATA --short path/of/runs=RUNS                            into benchmarks/results/
    PYTHONPATH=. python benchmarks/evidence.py table benchmarks/results/evidence-neighbour-h200.jsonl …   markdown

RUN is a run's folder with metrics.jsonl, run.json, alarms.json, the training sets and the held-out evaluations. Written
are `evidence-NAME-LABEL.jsonl` (metrics.jsonl, paths shortened), `evidence-LABEL-settings.json` (settings, alarms,
versions) and `evidence-LABEL-read.json`: what is counted in judgments, whose texts are not committed. Recording further
runs under a label adds to the latter two. An iteration's second training is named by its phase ("2 DPO").
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray_app.base.ngrams import words
from ray_app.base.verdict import explanation
from ray_app.findings.judges import SAID
from ray_app.findings.naming import at, where
from ray_app.findings.run_tables import RunTables
from ray_app.judging.said import Said
from ray_app.run.folder import parts_of

RESULTS = Path(__file__).parent / "results"
SETTINGS = ("seed", "iterations", "instructions", "pairs", "judging", "then_dpo", "train", "evaluation", "prompts")
HELDOUT = {
    "accuracy": "accuracy",
    "position_consistent_accuracy": "right in both orders",
    "mirrored_accuracy": "right of pair and mirror, both orders",
    "instruction_sensitivity": "winner changes with the instruction",
    "unparsed_rate": "no verdict",
    "overlap_baseline": "always more of the instruction's words",
    "beyond_overlap": "the judge, beyond that",
    "accuracy_against_overlap": "accuracy where these words mislead",
}
SETS = {
    "accuracy": "accuracy",
    "length_baseline": "always the longer",
    "beyond_longer": "beyond the longer",
    "beyond_overlap": "beyond more words",
    "position_consistent_accuracy": "right in both orders",
}
BEGINNING_WORDS = 9


def shortened(text: str, short: list[str]) -> str:
    """A text without the machine's paths: the longest first, and whole names of folders alone."""
    for rule in sorted(short, key=len, reverse=True):
        path, _, name = rule.partition("=")
        text = re.sub(rf"{re.escape(path)}(?![\w.-])", name, text)
    return text


def counted(judgments: Iterator[tuple[str, str | None, str | None]]) -> dict[str, Any] | None:
    """Of (text, verdict, finish_reason): what the texts say. None where there are none."""
    said, beginnings, cut, without = Said(), Counter[str](), 0, 0
    for text, verdict, reason in judgments:
        said.see(text)
        told = words(explanation(text))
        if told:
            beginnings[" ".join(told[:BEGINNING_WORDS])] += 1
        if verdict is None:
            without += 1
            cut += reason == "length"
    if not (count := said.lengths.total()):
        return None
    ((beginning, times),) = beginnings.most_common(1) or (("", 0),)
    return {
        "judgments": count,
        **{name: round(value, 4) if value is not None else None for name, value in said.numbers().items()},
        "call_a_response_better": said.calling,
        "then_name_the_other": said.contradicting,
        "commonest_beginning": beginning,
        "commonest_beginning_share": round(times / count, 4),
        "without_verdict": without,
        "of_these_cut_off": cut,
    }


def read(run: RunTables) -> dict[str, Any]:
    """By table and iteration: what is counted in a run's judgments. Exits where a table is not there."""
    found: dict[str, Any] = {"heldout": {}, "training_set": {}}
    phases = {tables.folder.phase: tables for tables in run.phases()}
    for line in run.metrics():
        phase, stage = parts_of(line["stage"])
        if stage == "evaluation" and line["extra"]["set"] == "heldout":
            votes = phases[phase].votes(line["iteration"], "heldout")
            name, judgments = "heldout", ((row["text"], row["verdict"], row["finish_reason"]) for row in votes)
        elif stage == "train_set":
            trained = phases[phase].train_set(line["iteration"])
            # Of a preference the judgment that is chosen.
            texts = ((row.get("completion") or row["chosen"])[-1]["content"] for row in trained)
            name, judgments = "training_set", ((text, "kept", None) for text in texts)
        else:
            continue
        if not (numbers := counted(judgments)) and line["rows_out"]:
            sys.exit(f"{run.name}: the shards of {where(line['iteration'], phase)}, {name}, are not there")
        found[name][str(at(line))] = numbers
    return found


def evaluations(metrics: str) -> dict[tuple[str, str], dict[str, Any]]:
    """{(iteration, set): what its evaluation says} of a metrics.jsonl."""
    lines = [json.loads(line) for line in metrics.splitlines()]
    return {
        (str(at(line)), line["extra"]["set"]): line["extra"]
        for line in lines
        if parts_of(line["stage"])[1] == "evaluation"
    }


def record(args: argparse.Namespace) -> None:
    """Write the files of the runs. Exits where a run's tables are not there, or it had other versions."""
    settings_file, read_file = (args.results / f"evidence-{args.label}-{name}.json" for name in ("settings", "read"))
    new = {"revision": args.revision, "machine": args.machine, "packages": {}, "runs": {}}
    settings, judgments = RunTables.json(str(settings_file)) or new, RunTables.json(str(read_file))
    metrics = {run: shortened((run / "metrics.jsonl").read_text(encoding="utf-8"), args.short) for run in args.runs}
    for run in args.runs:
        tables = RunTables(str(run))
        if settings["packages"] not in ({}, tables.described["packages"]):
            sys.exit(f"{run}: other versions of packages than the runs before it")
        settings["packages"] = tables.described["packages"]
        kept = {name: tables.settings[name] for name in SETTINGS if name in tables.settings}
        kept = json.loads(shortened(json.dumps(kept), args.short))
        settings["runs"][run.name] = {"settings": kept, "alarms": tables.alarms()}
        judgments[run.name] = read(tables)
    for run, text in metrics.items():
        (args.results / f"evidence-{run.name}-{args.label}.jsonl").write_text(text, encoding="utf-8")
    for path, value in ((settings_file, settings), (read_file, judgments)):
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def percent(found: dict[str, Any] | None, n: int) -> str:
    """An estimate in percent with its interval, and its n where it is another than `n`."""
    if found is None or found["value"] is None:
        return ""
    bounds = "" if found["low"] is None else f" [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
    return f"{100 * found['value']:.1f}{bounds}" + (f" (n = {found['n']})" if found["n"] != n else "")


def table(args: argparse.Namespace) -> None:
    """Markdown of each record: held-out pairs by iteration, then every set of the last evaluation."""
    for path in args.records:
        found = evaluations(path.read_text(encoding="utf-8"))
        heldout = {iteration: extra for (iteration, name), extra in found.items() if name == "heldout"}
        print(f"\n{path.name}")
        if heldout:
            print_heldout(heldout)
        last = next(reversed(found), ("",))[0]
        print(f"\n| set (n), iteration {last} | {' | '.join(SETS.values())} |\n| --- |" + " --- |" * len(SETS))
        for (iteration, name), extra in found.items():
            if iteration == last and name != "heldout":
                n = extra["headline"]["accuracy"]["n"]
                print(f"| {name} ({n}) | {' | '.join(percent(extra['headline'].get(x), n) for x in SETS)} |")


def print_heldout(heldout: dict[str, dict[str, Any]]) -> None:
    """A column for each iteration."""
    n = next(iter(heldout.values()))["headline"]["accuracy"]["n"]
    print(f"\n| held-out pairs ({n}) | {' | '.join(heldout)} |\n| --- |" + " --- |" * len(heldout))
    for name, label in HELDOUT.items():
        print(f"| {label} | {' | '.join(percent(x['headline'].get(name), n) for x in heldout.values())} |")
    for name, label in SAID.items():
        values = (x.get("explanations", {}).get(name) for x in heldout.values())
        scale = 1 if name == "explanation_words_median" else 100
        print(f"| {label} | {' | '.join('' if x is None else f'{scale * x:.4g}' for x in values)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record")
    recording.add_argument("runs", type=Path, nargs="+")
    recording.add_argument("--label", required=True)
    recording.add_argument("--revision", required=True)
    recording.add_argument("--machine", required=True)
    recording.add_argument("--short", action="append", default=[], metavar="PATH=NAME")
    recording.add_argument("--results", type=Path, default=RESULTS)
    recording.set_defaults(do=record)
    showing = commands.add_parser("table")
    showing.add_argument("records", type=Path, nargs="+")
    showing.set_defaults(do=table)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
