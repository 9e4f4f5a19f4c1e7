"""`judge --rank`: n responses a prompt in, their order out; the best and the worst of each as a TRL preference file.

Every couple of responses is judged as a pair of its own, so votes are durable, and a second call continues.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ray_app.base.schema import Text
from ray_app.benchmarks.responses import Candidates, Shape, as_pairs, read_candidates
from ray_app.command.judge_file import check_output, same_file
from ray_app.command.judging import judge_all, load_judge, voting_of
from ray_app.command.settings import JudgeSettings
from ray_app.errors import InputError
from ray_app.judging.protocol import PairProtocol
from ray_app.judging.ranking import Ranking, couples, ranking
from ray_app.judging.registry import protocol_of
from ray_app.run import storage
from ray_app.run.location import require_kept


def rank_file(settings: JudgeSettings, source: str, target: str) -> int:
    """The rankings of every row of `source` in `target`, in the file's order."""
    judge = load_judge(settings)
    protocol = protocol_of(judge.mode)
    benchmark, shapes = as_pairs(source, settings.limit, lambda count: couples(count, protocol))
    for option, path in (("--output", target), ("--preferences", settings.preferences)):
        if path is not None:
            require_kept(option, path, Path.cwd())
            check_output(source, path, option)
    if settings.preferences is not None and same_file(settings.preferences, target):
        raise InputError(f"--preferences {settings.preferences} is the --output, which it would overwrite")
    folder = f"{target}.parts"
    judged = judge_all(settings, judge, {folder: benchmark})[folder]
    records = protocol.records(benchmark, judged.answers, voting_of(settings))
    rankings = list(rankings_of(shapes, records, protocol))
    storage.write_bytes_atomic(target, lines(found.record() for found in rankings))
    print(f"{len(rankings)} rankings in {target}; {judged.result.completion_tokens:,} tokens")
    if settings.preferences is not None:
        rows = [row for row in map(preference, read_candidates(source, settings.limit), rankings) if row is not None]
        storage.write_bytes_atomic(settings.preferences, lines(rows))
        print(f"{len(rows)} preferences in {settings.preferences}; in the other rows nothing is best, or nothing worst")
    return 0


def rankings_of(
    shapes: Iterable[Shape], records: Iterator[Mapping[str, Any]], protocol: PairProtocol
) -> Iterator[Ranking]:
    """One ranking a row. `records` come in the order of the rows' couples."""
    for shape in shapes:
        if shape.fault is not None:
            yield Ranking(shape.id, tuple(range(shape.count)), (None,) * shape.count, shape.fault)
            continue
        own = itertools.islice(records, len(shape.couples))
        yield ranking(shape.id, shape.count, dict(zip(shape.couples, own, strict=True)), protocol)


def preference(row: Candidates, found: Ranking) -> dict[str, Any] | None:
    """The best against the worst response as TRL's trainers take it (conversational preference format); None where they
    score the same, or cannot be told.
    """
    known = [index for index in found.order if found.scores[index] is not None]
    if found.quarantined or len(known) < 2 or found.scores[known[0]] == found.scores[known[-1]]:
        return None
    best, worst = known[0], known[-1]
    return {
        "id": row.id,
        "prompt": _messages(row.instruction, "user"),
        "chosen": _messages(row.responses[best], "assistant"),
        "rejected": _messages(row.responses[worst], "assistant"),
        "score_chosen": found.scores[best],
        "score_rejected": found.scores[worst],
    }


def lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("utf-8", "replace")


def _messages(text: Text, role: str) -> list[Any]:
    return [{"role": role, "content": text}] if isinstance(text, str) else list(text)
