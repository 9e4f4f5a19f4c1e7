"""Benchmarks by name.

load_benchmark("rewardbench")                       from the Hugging Face hub
load_benchmark("rewardbench=rows.jsonl", limit=40)  its own columns, or the common pairwise form
load_benchmark("judgebench=ORG/NAME:SPLIT")         any hub id
load_benchmark("pairs.parquet")                     the common pairwise form, named by the file's stem
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

from ray_app.benchmarks import (
    helpsteer2,
    judgebench,
    llmbar,
    mtbench_human,
    pairwise,
    ppe,
    rated,
    rewardbench,
    rewardbench2,
    rmbench,
)
from ray_app.benchmarks.base import Benchmark, Item, Spec, collect
from ray_app.benchmarks.data_files import has_suffix
from ray_app.benchmarks.files import Numbered, columns_of, read_numbered
from ray_app.benchmarks.hub import parse_id, read_hub
from ray_app.errors import InputError

_SPECS = (
    rewardbench.SPEC,
    helpsteer2.SPEC,
    helpsteer2.RATINGS,
    mtbench_human.SPEC,
    judgebench.SPEC,
    judgebench.CLAUDE,
    llmbar.SPEC,
    rewardbench2.SPEC,
    rmbench.SPEC,
    ppe.VOTES,
    ppe.PAIRS,
    rated.SPEC,
    pairwise.SPEC,
)
BENCHMARKS: dict[str, Spec] = {spec.name: spec for spec in _SPECS}


def load_benchmark(spec: str, limit: int | None = None, labelled: bool = True, *, all_ids: bool = False) -> Benchmark:
    """A benchmark from `NAME`, `NAME=PATH` or `PATH`; the first `limit` scored rows.

    PATH is a local file or folder, an fsspec URI or a hub id. An unknown NAME names a file in the common
    pairwise form. `labelled=False` accepts rows without a label (judging, not scoring). `all_ids` reads the
    ids after the limit too (`Benchmark.beyond`). Raises InputError for faults of the file; faulty rows are in
    `Benchmark.faulty`.
    """
    name, path = split_spec(spec)
    rules = BENCHMARKS.get(name, pairwise.SPEC)
    source = path or (rules.hub[0] if rules.hub else "")
    if not source:
        raise InputError(f"benchmark {name} needs a file: {name}=PATH")
    return collect(benchmark_name(spec), rules.name, source, _items(rules, source, labelled), limit, all_ids)


def benchmark_name(spec: str) -> str:
    """What the benchmark of a spec is called, and its folder: NAME, else the stem of its file or the hub's own name.

    Raises InputError for a name that no folder and no id of a unit of work can carry.
    """
    name, path = split_spec(spec)
    if name in (pairwise.SPEC.name, rated.SPEC.name) and path:
        hub = None if is_file(path) else parse_id(path)
        name = hub[0].rsplit("/", 1)[-1] if hub else _stem(path)
    if name in ("", ".", "..") or ":" in name:
        raise InputError(f"benchmark {spec!r} cannot be called {name!r}; write NAME=PATH")
    return name


def _items(rules: Spec, source: str, labelled: bool) -> Iterator[Item]:
    hub = None if is_file(source) else parse_id(source)
    if hub is None and not rules.rated and pairwise.is_common_form(columns_of(source)):
        rows = read_numbered(source, pairwise.REQUIRED, pairwise.OPTIONAL)
        return pairwise.parse(rows, labelled, rules.subset)
    rows = read_numbered(source, rules.required) if hub is None else _hub_rows(rules, *hub)
    return pairwise.parse(rows, labelled) if rules is pairwise.SPEC else rules.parse(rows)


def _hub_rows(rules: Spec, identity: str, split: str | None) -> Iterator[Numbered]:
    official = rules.hub if rules.hub and rules.hub[0] == identity else (identity, None, ("train",))
    names = (rules.parts or (identity,)) if official is rules.hub else (identity,)
    splits = (split,) if split else official[2]
    return chain.from_iterable(read_hub(name, official[1], splits, rules.required) for name in names)


def split_spec(spec: str) -> tuple[str, str]:
    """(NAME, PATH) of a spec; PATH is empty for a name alone. Raises InputError for what is neither."""
    if spec in BENCHMARKS:
        return spec, ""
    name, equals, path = spec.partition("=")
    if not equals or "/" in name:  # a path may hold an equals sign, a name holds no slash
        if is_file(spec) or parse_id(spec):
            return pairwise.SPEC.name, spec
        hint = _near(spec) or f"; known: {', '.join(BENCHMARKS)}"
        raise InputError(f"benchmark {spec!r} is neither a known name nor a file{hint}")
    if not name or not path:
        raise InputError(f"benchmark {spec!r} is not NAME=PATH")
    if name not in BENCHMARKS and _near(name):
        raise InputError(f"unknown benchmark {name!r}{_near(name)}")
    return name, path


def shows_four(spec: str) -> bool:
    """Whether its rows are best-of-four rows: known from the spec, before its file is read."""
    return split_spec(spec)[0] == rewardbench2.SPEC.name


def has_ratings(spec: str) -> bool:
    """Whether its rows are single responses with human scores: known from the spec, before its file is read."""
    return BENCHMARKS.get(split_spec(spec)[0], pairwise.SPEC).rated


def is_file(path: str) -> bool:
    """Whether `path` is meant as a file or folder rather than a hub id."""
    if not path:
        return False
    if "://" in path or has_suffix(path):
        return True
    return Path(path).exists()


def _stem(path: str) -> str:
    name = PurePosixPath(path.rstrip("/").replace(":", "/")).name
    return name.split(".")[0] or name.strip(".") or "pairs"


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, BENCHMARKS, n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""
