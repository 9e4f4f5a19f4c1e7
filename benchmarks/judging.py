"""Judging: bare vLLM against ray_app, what until-correct saves, reloads, and the driver under many pairs.

    python benchmarks/judging.py compare --set model=DIR [device=cuda replicas=4 replicas_per_gpu=4 …] [--json FILE]
    python benchmarks/judging.py bare    --set model=DIR …              side (a) alone; `app`: side (b) alone
    python benchmarks/judging.py cost    --set model=DIR samples=15     until_correct against all: tokens, tail
    python benchmarks/judging.py reload  --set model=DIR                checkpoint written → first judgment
    python benchmarks/judging.py handover --set model=DIR               GPUs to training and back, judging twice
    python benchmarks/judging.py scale   --sizes 10000 100000           scripted pairs: time and driver memory

`compare` runs side (a), bare vLLM, and side (b), ray_app from Parquet to Parquet, each in a process of its own, with
the same engine arguments and requests, engines warm, `repeats` times, and prints medians. Settings are those of `Spec`
in judge_bench/work.py. RAY_ADDRESS is not used: both sides have this machine to themselves.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from judge_bench.cost import expected_tokens, kept, plug_in_tokens  # noqa: E402
from judge_bench.work import Spec  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    os.environ.pop("RAY_ADDRESS", None)
    if arguments.part == "side":
        return side(arguments)
    given = {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in arguments.set)}
    found = {
        "compare": lambda given, _: compare(given, ("bare", "app")),
        "bare": lambda given, _: compare(given, ("bare",)),
        "app": lambda given, _: compare(given, ("app",)),
        "cost": cost,
        "reload": lambda given, _: {"reload": in_own_process("reload", given)},
        "handover": lambda given, _: {"handover": in_own_process("handover", given)},
        "scale": lambda _, sizes: {"scale": in_own_process("scale", {"sizes": sizes})},
    }[arguments.part](given, arguments.sizes)
    record = {"part": arguments.part, "label": arguments.label or arguments.part, "given": given, **found}
    show(record)
    if arguments.json:
        with open(arguments.json, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["compare", "bare", "app", "cost", "reload", "handover", "scale", "side"])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="fields of Spec, as YAML")
    parser.add_argument("--sizes", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--label", help="name of this record")
    parser.add_argument("--json", help="append the record to this JSON-lines file")
    parser.add_argument("--request", help=argparse.SUPPRESS)
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def side(arguments: argparse.Namespace) -> int:
    """One side in a process of its own: engines, environment and memory of the other never meet it."""
    request = json.loads(arguments.request)
    name, given = request["part"], request["given"]
    records: list[dict[str, Any]]
    if name == "scale":
        from judge_bench import scale

        records = scale.run(given["sizes"])
    elif name == "bare":
        from judge_bench import bare

        records = bare.run(Spec(**given))
    elif name == "reload":
        from judge_bench import reload

        records = reload.run(Spec(**given))
    elif name == "handover":
        from judge_bench import handover

        records = handover.run(Spec(**given))
    else:
        from judge_bench import app

        records = app.run(Spec(**given), ("all", "until_correct") if name == "cost" else ("all",))
    Path(arguments.answer).write_text(json.dumps(records), encoding="utf-8")
    return 0


def in_own_process(part: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        request = json.dumps({"part": part, "given": given})
        command = [sys.executable, __file__, "side", "--request", request, "--answer", str(answer)]
        subprocess.run(command, check=True)
        records: list[dict[str, Any]] = json.loads(answer.read_text(encoding="utf-8"))
        return records


def compare(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Tokens a second of the sides in mode `all`, and the ratio of both."""
    sides = {name: in_own_process(name, given) for name in names}
    rates = {name: [r["completion_tokens"] / r["seconds"] for r in records] for name, records in sides.items()}
    for record in sides.get("app", []):
        del record["samples"]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "requests": Spec(**given).requests,
        "spec": dataclasses.asdict(Spec(**given)),
        "tokens_per_s": rates,
        "median": medians,
        "ratio": medians["app"] / medians["bare"] if len(medians) == 2 else None,
        **sides,
    }


def cost(given: dict[str, Any], _: object) -> dict[str, Any]:
    """Tokens of until_correct against `all` and against what design §7 expects; its tail apart."""
    records = in_own_process("cost", given)
    modes: dict[str, list[dict[str, Any]]] = {"all": [], "until_correct": []}
    for record in records:
        modes[record["mode"]].append(record)
    rows = {mode: [[tuple(s) for s in r.pop("samples")] for r in found] for mode, found in modes.items()}
    spent = sum(r["completion_tokens"] for r in modes["until_correct"])
    expected = sum(expected_tokens(r) for r in rows["all"])
    plug_in = sum(plug_in_tokens(r, Spec(**given).samples) for r in rows["all"])
    keeps = {mode: sum(kept(r) for r in found) for mode, found in rows.items()}
    tokens = {mode: sum(r["completion_tokens"] for r in found) for mode, found in modes.items()}
    return {
        "spec": dataclasses.asdict(Spec(**given)),
        "tokens": tokens,
        "kept": keeps,
        "tokens_per_kept": {mode: tokens[mode] / keeps[mode] if keeps[mode] else None for mode in modes},
        "spent_over_expected": spent / expected,
        "spent_over_plug_in": spent / plug_in,
        "spent_over_all": spent / tokens["all"],
        "tail_share_of_seconds": statistics.median(r["tail_s"] / r["seconds"] for r in modes["until_correct"]),
        "full_tokens_per_s": statistics.median(r["full_tokens"] / r["full_s"] for r in modes["until_correct"]),
        "tail_tokens_per_s": statistics.median(
            r["tail_tokens"] / max(r["tail_s"], 1e-9) for r in modes["until_correct"]
        ),
        "records": modes,
    }


def show(record: dict[str, Any]) -> None:
    """The figures of one record; the lists are in the JSON."""
    table = Table(title=record["label"], show_header=False)
    for name, value in record.items():
        if name in ("part", "label", "spec", "bare", "app", "records") or isinstance(value, list):
            continue
        for key, figure in value.items() if isinstance(value, dict) else [("", value)]:
            shown = figure if not isinstance(figure, list) else " ".join(f"{v:,.0f}" for v in figure)
            table.add_row(f"{name} {key}".strip(), f"{shown:,.3f}" if isinstance(shown, float) else str(shown))
    for entry in record.get("reload", []) + record.get("handover", []) + record.get("scale", []):
        table.add_row("", " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in entry.items()))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
