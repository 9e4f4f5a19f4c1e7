"""The rows behind the tables of a run: one an iteration, from metrics.jsonl, and what is noted of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ray_app.loop.stages.evaluation import BASELINE, FIRST_JUDGE
from ray_app.run.folder import parts_of, selected_of_several
from ray_app.system.device_time import summed

OF_TRAINING_SET = (
    "tried",
    "kept",
    "keep_rate",
    "pass_rate",
    "rows",
    "pairs",
    "trained_by_letter",
    "explanation_words_median",
    "bare_verdicts",
    "distinct_explanations",
    "contradicting_explanations",
)


def iteration_rows(metrics: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row an iteration from the lines of metrics.jsonl; a value that was not measured is None.

    The first judge, where it is another model than the seed, has a row of its own, before them; the seed with another
    prompt has one behind the seed's, with `prompt`; a second training has one behind its iteration's, with `phase`.
    """
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    prompts: list[str] = []
    accounts: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for line in metrics:
        if line["iteration"] is None:
            continue
        _, stage = parts_of(line["stage"])
        key, named = row_of(line, prompts)
        row = rows.setdefault(key, {**named, "sets": {}, "changes": {}, "seconds": 0.0, "tokens": 0})
        row["seconds"] += line["seconds"]
        row["tokens"] += line["completion_tokens"]
        extra = line["extra"]
        if "device_time" in extra:
            accounts.setdefault(key, []).append(extra["device_time"])
        if stage == "train_set":
            row.update({name: extra[name] for name in OF_TRAINING_SET if name in extra})
            row["lost"] = sum(line["quarantined"].values())
        elif stage == "judgments":
            row["unparsed_rate"] = extra.get("unparsed_rate")
        elif stage == "training":
            row["selected"] = selected_of_several(extra)
        elif stage in ("evaluation", FIRST_JUDGE, BASELINE):
            row["sets"][extra["set"]] = extra["headline"]
            if extra.get("explanations"):
                row.setdefault("said", {})[extra["set"]] = extra["explanations"]
            if extra.get("per_1000"):
                row.setdefault("per_1000", {})[extra["set"]] = extra["per_1000"]
            if extra.get("change"):
                row["changes"][extra["set"]] = extra["change"]
    for key, told in accounts.items():
        rows[key]["device_time"] = summed(told)
    return [rows[i] for i in sorted(rows)]


def before_all(metrics: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What was done once: instructions and pairs, and the judgments that ran beside them."""
    told = [
        line["extra"]["device_time"] for line in metrics if line["iteration"] is None and "device_time" in line["extra"]
    ]
    return {"iteration": "-", "device_time": summed(told)}


def row_of(line: Mapping[str, Any], prompts: list[str]) -> tuple[tuple[int, int], dict[str, Any]]:
    """The place of a line's row, and what names it. `prompts` are those seen so far; a new one is added."""
    iteration = line["iteration"]
    phase, _ = parts_of(line["stage"])
    if phase:
        return (iteration, 1), {"iteration": f"{iteration}{phase}", "phase": phase}
    if line["stage"] == FIRST_JUDGE:
        return (-1, 0), {"iteration": "first", "judge": line["extra"].get("judge")}
    if line["stage"] != BASELINE:
        return (iteration, 0), {"iteration": iteration}
    prompt = line["extra"]["prompt"]
    if prompt not in prompts:
        prompts.append(prompt)
    number = prompts.index(prompt) + 1
    return (iteration, number), {"iteration": f"{iteration}p{number}", "prompt": prompt}


def notes(rows: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> list[str]:
    """What a reader has to know of the figures before trusting them."""
    said = []
    if any(row.get("selected") for row in rows):
        said.append("* the checkpoint was selected on this set: its figure flatters")
    said += [f"first: the first judge, {row['judge']}" for row in rows if row.get("judge")]
    said += [f"{row['iteration']}: the seed model with the prompt {row['prompt']}" for row in rows if "prompt" in row]
    if any(row.get("phase") for row in rows):
        said.append("dpo: after a second training, from the SFT checkpoint on its judgments of the same pairs")
    first = [row for row in rows if not row.get("phase")]
    again = any(row.get("pass_rate") is not None and row["iteration"] not in ("first", 0, 1) for row in first)
    if again and any(line["stage"] == "pairs" and line["iteration"] is None for line in metrics):
        said.append("pass and keep from iteration 2 on: of pairs that the judge was trained on")
    if any(row.get("pass_rate") is not None and row.get("phase") for row in rows):
        said.append("pass and keep of dpo: of pairs that the SFT checkpoint was just trained on")
    return said
