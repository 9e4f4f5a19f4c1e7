"""Records runs of scripts/gpu_evidence.sh for docs/results.md, and makes the page's tables from the records.

    PYTHONPATH=. python benchmarks/evidence.py record RUN … --label h200 --revision COMMIT --machine "2 NVIDIA H200" \
        --short /opt/data=DATA --short /opt/runs=RUNS --short /opt/e/smollm2=MODEL     into benchmarks/results/
    PYTHONPATH=. python benchmarks/evidence.py table benchmarks/results/evidence-neighbour-h200.jsonl …   markdown

RUN is a run's folder with metrics.jsonl, run.json, alarms.json, the training sets and the held-out evaluations. Written
are `evidence-NAME-LABEL.jsonl` (metrics.jsonl, paths shortened), `evidence-LABEL-settings.json` (settings, alarms,
versions) and `evidence-LABEL-read.json`: what is counted in judgments, whose texts are not committed. Recording further
runs under a label adds to the latter two. An iteration's second training is named by its phase ("2 dpo").
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

import pyarrow.parquet as pq

from ray_app.base.ngrams import words
from ray_app.base.verdict import explanation
from ray_app.judging.said import Said
from ray_app.run.folder import DPO, parts_of

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
SAID = {
    "explanation_words_median": "words said (median)",
    "bare_verdicts": "… nothing but a verdict",
    "distinct_explanations": "… distinct",
    "telling_explanations": "… telling the responses apart",
    "contradicting_explanations": "… of those that call a response better, name the other",
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


def rows_of(table: Path) -> Iterator[dict[str, Any]]:
    for shard in sorted(table.glob("shard-*.parquet")):
        yield from pq.read_table(shard).to_pylist()


def counted(judgments: Iterator[tuple[str, str | None, str | None]]) -> dict[str, Any] | None:
    """Of (text, verdict, finish_reason): what the texts say. None where there are none."""
    said, beginnings, cut, without, count = Said(), Counter[str](), 0, 0, 0
    for text, verdict, reason in judgments:
        said.see(text)
        count += 1
        told = words(explanation(text))
        if told:
            beginnings[" ".join(told[:BEGINNING_WORDS])] += 1
        if verdict is None:
            without += 1
            cut += reason == "length"
    if not count:
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


def read(run: Path) -> dict[str, Any]:
    """By table and iteration: what is counted in a run's judgments."""
    found: dict[str, Any] = {"heldout": {}, "training_set": {}}
    for folder in sorted([*run.glob("iter_*"), *run.glob(f"iter_*/{DPO}")]):
        name = name_of(int(folder.relative_to(run).parts[0].removeprefix("iter_")), DPO if folder.name == DPO else "")
        heldout = rows_of(folder / "evaluation" / "heldout")
        if numbers := counted((row["text"], row["verdict"], row["finish_reason"]) for row in heldout):
            found["heldout"][name] = numbers
        trained = rows_of(folder / "train_set")
        # Of a preference the judgment that is chosen.
        texts = ((row.get("completion") or row["chosen"])[-1]["content"] for row in trained)
        if numbers := counted((text, "kept", None) for text in texts):
            found["training_set"][name] = numbers
    return found


def name_of(iteration: int, phase: str) -> str:
    """An iteration's name in tables and records."""
    return f"{iteration} {phase}" if phase else str(iteration)


def evaluations(metrics: str) -> dict[tuple[str, str], dict[str, Any]]:
    """{(iteration, set): what its evaluation says} of a metrics.jsonl."""
    found = {}
    for row in map(json.loads, metrics.splitlines()):
        phase, stage = parts_of(row["stage"])
        if stage == "evaluation":
            found[name_of(row["iteration"], phase), row["extra"]["set"]] = row["extra"]
    return found


def record(args: argparse.Namespace) -> None:
    """Write the files of the runs. Exits where a run's tables are not there, or it had other versions."""
    settings_file, read_file = (args.results / f"evidence-{args.label}-{name}.json" for name in ("settings", "read"))
    settings = earlier(settings_file) or {
        "revision": args.revision,
        "machine": args.machine,
        "packages": {},
        "runs": {},
    }
    judgments = earlier(read_file) or {}
    metrics = {run: shortened((run / "metrics.jsonl").read_text(encoding="utf-8"), args.short) for run in args.runs}
    for run in args.runs:
        told = json.loads(shortened((run / "run.json").read_text(encoding="utf-8"), args.short))
        alarms = json.loads((run / "alarms.json").read_text(encoding="utf-8"))["alarms"]
        if settings["packages"] not in ({}, told["packages"]):
            sys.exit(f"{run}: other versions of packages than the runs before it")
        settings["packages"] = told["packages"]
        kept = {name: told["settings"][name] for name in SETTINGS if name in told["settings"]}
        settings["runs"][run.name] = {"settings": kept, "alarms": alarms}
        judgments[run.name] = read(run)
        asked = {iteration for iteration, name in evaluations(metrics[run]) if name == "heldout"}
        if missing := asked - judgments[run.name]["heldout"].keys():
            sys.exit(f"{run}: no shards of the held-out evaluation of iteration {', '.join(sorted(missing))}")
    for run, text in metrics.items():
        (args.results / f"evidence-{run.name}-{args.label}.jsonl").write_text(text, encoding="utf-8")
    for path, value in ((settings_file, settings), (read_file, judgments)):
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def earlier(path: Path) -> dict[str, Any] | None:
    """What was recorded under the same label before."""
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


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
