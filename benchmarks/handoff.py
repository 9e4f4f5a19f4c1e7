"""What changing hands costs: engines that start, sleep and wake, and where the time of a whole run goes.

    python benchmarks/handoff.py engine --model PATH --output engine.json     one engine; on a GPU it sleeps ten times
    python benchmarks/handoff.py account runs/NAME --output account.json      of a run that has ended
    python benchmarks/handoff.py compare runs/NAME fresh/NAME --output compare.json
    scripts/gpu_handoff.sh                                                    all of that on one GPU

`compare` holds a run whose engines slept against a copy of its folder that went on with engines that never sleep: the
verdicts on every evaluation set, and the rows trained on. Copy the run's folder, remove the stages to do again from the
copy, and give the same command `--runs fresh --pools.sleep never --pools.standby never`.

`engine` asks the same questions, one at a time, of the engine as it started, after every waking, with the weights of
another checkpoint, and of engines that start on that checkpoint by themselves. What each says (greedy tokens, and the
log-probabilities of given text) has to be the same. On processors engines do not sleep: there they end and start.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from judge_bench import held

from ray_app.engine.base import Engine, UnitResult, Work, alone
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.engine.settings import EngineSettings
from ray_app.run.shards import shard_files
from ray_app.run.storage import read_parquet
from ray_app.system.cluster import connected
from ray_app.system.cluster_settings import RaySettings
from ray_app.system.device_time import idle_share, summed

QUESTIONS = [f"Name {count} things that {what}, and why." for count in (2, 3) for what in ("float", "melt", "sing")]
TOKENS = 48


class Said:
    """Asks vLLM itself: greedy tokens of an answer, and the log-probability of every token of the question."""

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["id"])

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        from vllm import SamplingParams

        prepared = engine.prepare([{"role": "user", "content": row["text"]}])
        parameters = SamplingParams(temperature=0, max_tokens=TOKENS, logprobs=0, prompt_logprobs=0)
        vllm: Any = getattr(engine, "engine", engine)  # a program is given its engine behind a limit of time
        final = await vllm.core.generate(prepared.token_ids, parameters)
        answer = final.outputs[0]
        given = [next(iter(one.values())).logprob for one in final.prompt_logprobs if one]
        drawn = [one[token].logprob for token, one in zip(answer.token_ids, answer.logprobs, strict=True)]
        return UnitResult(str(row["id"]), rows=[{"tokens": list(answer.token_ids), "logprobs": given + drawn}])


def said(pool: EnginePool) -> list[dict[str, Any]]:
    """What the pool's engine says to every question, asked one at a time: a batch would change the last bits."""
    work, found = Work(Said(), "handoff", None, pool.model), []
    for number, text in enumerate(QUESTIONS):
        units = ray.get(pool.actors[0].run.remote([work], alone([{"id": number, "text": text}])))
        if units[0].quarantine:
            raise SystemExit(f"the engine did not answer: {units[0].quarantine[0]}")
        found += units[0].rows
    return found


def difference(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether the greedy tokens are the same, and how far apart the log-probabilities of the same tokens are."""
    same = sum(a["tokens"] == b["tokens"] for a, b in zip(one, other, strict=True))
    apart = [
        abs(x - y)
        for a, b in zip(one, other, strict=True)
        if a["tokens"] == b["tokens"]
        for x, y in zip(a["logprobs"], b["logprobs"], strict=True)
    ]
    return {"same_answers": same, "of": len(one), "logprob_apart_max": max(apart, default=None)}


def other_weights(model: str, folder: str) -> str:
    """A copy of a model whose weights are all a little different."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    torch.manual_seed(0)
    for file in Path(folder).glob("*.safetensors"):
        weights = {name: w * (1 + 0.05 * torch.randn_like(w)) for name, w in load_file(file).items()}
        save_file(weights, file, metadata={"format": "pt"})
    return folder


def gpu_mib() -> int | None:
    """Memory in use on the first GPU; None where there is none."""
    return next(iter(held.gpu_mib()), None)


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    started = time.monotonic()
    result = what()
    return round(time.monotonic() - started, 2), result


def engine(options: argparse.Namespace) -> dict[str, Any]:
    """Starts, sleeps and wakings of one engine."""
    settings = EngineSettings(
        model=options.model, device=options.device, max_model_len=2048, max_num_seqs=options.max_num_seqs
    )
    found: dict[str, Any] = {"model": Path(options.model).name, "empty_mib": gpu_mib()}
    with tempfile.TemporaryDirectory() as scratch, connected(RaySettings(dashboard=False)):
        other = settings.of_checkpoint(other_weights(options.model, f"{scratch}/other"))
        pools = PoolManager("handoff", may_grow=False, sleeps=True, seed=settings)
        try:
            found["first_start_s"], serving = timed(lambda: pools.get("judge", settings))
            pool = serving.pool
            found["first_start_parts_s"], found["awake_mib"] = pool.parts, gpu_mib()
            at_start = said(pool)
            if pool.sleeps:
                found |= sleeps(pools, settings, at_start, options.sleeps)
            found["other_weights_s"], serving = timed(lambda: pools.get("judge", other))
            found["other_weights_how"] = serving.how
            by_change = said(serving.pool)
            found["other_weights_change_answers"] = difference(at_start, by_change)
            report(options, found)
            for name, base in (("start_as_the_seed", settings), ("plain_start", None)):
                pools.close()
                pools.seed = base
                found[f"{name}_s"], serving = timed(lambda: pools.get("judge", other))
                found[f"{name}_parts_s"] = serving.pool.parts
                found[f"{name}_against_changed"] = difference(said(serving.pool), by_change)
                report(options, found)
        finally:
            pools.close()
    return found | {"closed_mib": gpu_mib()}


def sleeps(pools: PoolManager, settings: EngineSettings, at_start: list[dict[str, Any]], many: int) -> dict[str, Any]:
    """So many sleeps in a row, with what the engine says after each."""
    pool = pools.pools[0]
    asleep, woken, apart, held = [], [], [], []
    for _ in range(many):
        asleep.append(timed(pool.sleep)[0])
        held.append(gpu_mib())
        seconds, serving = timed(lambda: pools.get("judge", settings))
        if serving.how != "woken":
            raise SystemExit(f"the engine did not wake but was {serving.how}")
        woken.append(seconds)
        apart.append(difference(at_start, said(pool)))
    return {
        "sleeps": many,
        "sleep_s": statistics.median(asleep),
        "wake_s": statistics.median(woken),
        "asleep_mib": held,
        "woken_against_start": apart,
    }


def account(run: str) -> dict[str, Any]:
    """Where the device-seconds of every iteration went, from a run's metrics.jsonl; iteration null is before all."""
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {}
    accounts: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        iteration, extra = str(line["iteration"]), line["extra"]
        row = found.setdefault(iteration, {"stages": {}})
        row["stages"][line["stage"] + extra.get("set", "")] = line["seconds"]
        row |= {name: extra[name] for name in ("checkpoint_to_first_answer_s",) if name in extra}
        if "device_time" in extra:
            accounts.setdefault(iteration, []).append(extra["device_time"])
    for iteration, told in accounts.items():
        found[iteration] |= summed(told) | {"idle_share": idle_share(told)}
    return found


def verdicts(folder: Path) -> dict[str, Any]:
    """What was found for every row of an evaluated set, with the votes of each order."""
    return {row["id"]: row for row in map(json.loads, (folder / "verdicts.jsonl").read_text().splitlines())}


def of_set(one: Path, other: Path) -> dict[str, Any]:
    """How alike two runs judged a set: rows with the same verdicts, and the first measure of both with intervals."""
    first, second = verdicts(one), verdicts(other)
    overall = [json.loads((folder / "summary.json").read_text())["overall"] for folder in (one, other)]
    measure = next(iter(overall[0]))  # accuracy, or what stands for it in a benchmark of its own kind
    was, is_now = (told[measure] for told in overall)
    return {
        "n": len(first),
        "same_rows": first.keys() == second.keys(),
        "same_verdicts": sum(second.get(row) == told for row, told in first.items()),
        measure: [was, is_now],
        "within_interval": was["low"] is None or was["low"] <= is_now["value"] <= was["high"],
    }


def trained_on(folder: Path) -> dict[tuple[Any, ...], str]:
    """The texts of a training set, by pair, order and sample."""
    rows = [row for file in shard_files(str(folder)) for row in read_parquet(file).to_pylist()]
    return {(row["pair_id"], row["order"], row["sample"]): row["completion"][0]["content"] for row in rows}


def compare(one: Path, other: Path) -> dict[str, Any]:
    """Every evaluated set and training set that both folders have, by iteration."""
    found: dict[str, Any] = {}
    for folder in sorted(other.glob("iter_*/evaluation/*")):
        if (folder / "summary.json").is_file():
            name = folder.relative_to(other)
            found[str(name)] = of_set(one / name, folder)
    for folder in sorted(other.glob("iter_*/train_set")):
        first, second = trained_on(one / folder.relative_to(other)), trained_on(folder)
        units = [{key[:2] for key in rows} for rows in (first, second)]
        found[str(folder.relative_to(other))] = {
            "rows": [len(first), len(second)],
            "units_in_both": len(units[0] & units[1]),
            "same_sample": len(first.keys() & second.keys()),
            "same_text": sum(second.get(key) == text for key, text in first.items()),
        }
    return found


def report(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write what is known so far: a call on a borrowed machine may be cut off."""
    if options.output:
        Path(options.output).write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="")
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("engine")
    one.add_argument("--model", default=".cache/models/smollm2-135m-instruct")
    one.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    one.add_argument("--max-num-seqs", type=int, default=1024)
    one.add_argument("--sleeps", type=int, default=10)
    whole = parts.add_parser("account")
    whole.add_argument("run")
    two = parts.add_parser("compare")
    two.add_argument("run", type=Path)
    two.add_argument("fresh", type=Path)
    options = parser.parse_args()
    if options.part == "engine":
        found = engine(options)
    elif options.part == "account":
        found = account(options.run)
    else:
        found = compare(options.run, options.fresh)
    report(options, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
