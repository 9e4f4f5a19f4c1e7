"""README.md of a checkpoint (model card) and of a training set (dataset card), in the Hub's format. Pure text.

The front matter of a dataset card names its Parquet files, so `datasets.load_dataset(folder)` works as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from ray_app.base.model_files import is_path
from ray_app.engine.settings import EngineSettings
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.inputs import VALIDATION
from ray_app.metrics.similarity import THIRDS
from ray_app.run.folder import StageRecord, selected_of_several

PAPER = "[Self-Taught Evaluators](https://arxiv.org/abs/2408.02666)"
TAGS = ["self-taught-evaluators", "llm-as-a-judge"]
SHOWN = {  # rows of the score table, where they were measured
    "accuracy": "accuracy, both orders",
    "vote_accuracy": "accuracy of the majority vote",
    "position_consistent_accuracy": "right in both orders",
    "unparsed_rate": "unparsed",
    "first_position_rate": "verdicts for the response shown first",
    "length_baseline": "for comparison: always the longer response",
    "beyond_longer": "accuracy above that, on the same rows",
    "overlap_baseline": "for comparison: always the response with more of the instruction's words",
    "beyond_overlap": "accuracy above that, on the same rows",
    "accuracy_against_overlap": "accuracy where the worse response has more of them",
    "mirrored_accuracy": "right in both orders, and of the mirror (the same responses, another instruction)",
    "instruction_sensitivity": "winner changes with the instruction, of mirrored pairs",
    **{f"accuracy_{third}_similar": f"accuracy, the {third} similar third of instructions" for third in THIRDS},
}
SAID = {  # of the judgments of a set, beside their verdicts
    "bare_verdicts": "judgments that are a bare verdict",
    "distinct_explanations": "distinct among what the others say",
    "telling_explanations": "judgments with a word of content of one response alone",
    "contradicting_explanations": "of those that call a response better: the verdict names the other",
}


def model_card(
    settings: IterateSettings,
    iteration: int,
    training: StageRecord,
    train_set: StageRecord | None,
    evaluations: Sequence[StageRecord] = (),
    phase: str = "",
) -> str:
    """The card of a judge that `iteration` has trained. `evaluations` are the committed sets, in the order they are
    shown; `phase` names a second training, whose settings are then given.
    """
    base = settings.judge.model
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": TAGS}
    if not is_path(base):
        front["base_model"] = base
    return _card(
        front,
        f"# {settings.name}: judge M({iteration}){_after(phase)}",
        "An LLM judge: it explains its judgment of responses to an instruction and ends in "
        f"{settings.protocol.ends_in}. {public(base)} was fine-tuned on judgments that it, or the judge before it, "
        f"made itself: iteration {iteration} of {PAPER}{_labels(settings)}.",
        "## Use\n\n    python -m ray_app.judge --model THIS_FOLDER --input pairs.jsonl --output verdicts.jsonl\n\n"
        "`judge.json` holds the prompt, the parser and the sampling it was trained for; transformers and `vllm serve` "
        "load the folder as it is.",
        "## Training\n\n" + _table(("", ""), _training_rows(settings, training, train_set)),
        *_selection(training),
        *_scores(evaluations, selected_of_several(training.extra)),
        "## License\n\nThe weights derive from "
        f"{public(base)}: its license applies. Check the terms of {_models(settings)} for training on their answers.",
    )


def dataset_card(settings: IterateSettings, iteration: int, record: StageRecord, phase: str = "") -> str:
    """The card of a training set of `iteration`; `phase` as in `model_card`."""
    dpo = settings.train.recipe == "dpo"
    front = {
        "tags": TAGS,
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "shard-*.parquet"}]}],
    }
    columns = "`prompt`, `chosen`, `rejected`" if dpo else "`prompt`, `completion`"
    kind = "preference" if dpo else "prompt-completion"
    return _card(
        front,
        f"# {settings.name}: training set of iteration {iteration}{_after(phase)}",
        f"Synthetic judgments, kept by rejection sampling as in {PAPER}{_labels(settings)}. Which response of a pair "
        f"is the better one {_known_by(settings)}.",
        f"## Format\n\nTRL's conversational {kind} format: {columns} are lists of chat messages. `pair_id`, `order` "
        "(which response was shown first, or which one was scored), `sample` and `iteration` are the key.\n\n"
        '    datasets.load_dataset("THIS_FOLDER", split="train")',
        "## How it was made\n\n" + _table(("", ""), _set_rows(settings, record)),
        f"## License\n\nInstructions come from {public(settings.instructions.source)}, texts from "
        f"{_models(settings)}: their licenses and terms apply.",
    )


def public(name: str) -> str:
    """A hub id as it is; of a path or URI the last part only: a card is published, paths are not."""
    if name.startswith("hf:"):
        return name.removeprefix("hf:")
    return PurePosixPath(name).name if is_path(name) else name


def _labels(settings: IterateSettings) -> str:
    """Where labels come from, as far as the run can tell."""
    if settings.pairs.source:
        return ", on pairs made elsewhere too, whose labels are those of their source"
    return ", without human preference labels"


def _known_by(settings: IterateSettings) -> str:
    if not settings.pairs.makes:
        return "was taken from their source"
    return "follows from how it was made" + (", or was taken from their source" if settings.pairs.source else "")


def _after(phase: str) -> str:
    return f", {phase.upper()} after SFT" if phase else ""


def _models(settings: IterateSettings) -> str:
    generator = settings.generator if settings.generates else None
    engines: Iterable[EngineSettings | None] = (generator, settings.first_judge, settings.judge)
    names = dict.fromkeys(public(engine.model) for engine in engines if engine is not None)
    return ", ".join(names)


def _training_rows(
    settings: IterateSettings, training: StageRecord, train_set: StageRecord | None
) -> list[tuple[str, Any]]:
    train, extra = settings.train, training.extra
    method = {"sft": "supervised fine-tuning on the judgment's tokens", "dpo": "DPO on right and wrong judgments"}
    adapters = f", LoRA of rank {train.lora.rank}, merged" if train.lora else ""
    return [
        ("base model", public(settings.judge.model)),
        ("started from", extra.get("started_from")),
        ("method", method[train.recipe] + adapters),
        ("training set", train_set.fingerprint.digest if train_set else None),
        ("rows", training.rows_out),
        ("rows too long or otherwise left out", sum(training.quarantined.values())),
        ("steps", extra.get("steps")),
        ("epochs", extra.get("epochs")),
        ("tokens", extra.get("train_tokens")),
        ("loss, first and last step", _both(extra.get("first_loss"), extra.get("last_loss"))),
        ("learning rate", f"{train.lr:g} to {train.lr_min:g}, cosine, {train.warmup_steps} warm-up steps"),
        ("betas", f"{train.betas[0]:g}, {train.betas[1]:g}"),
        ("weight decay", train.weight_decay),
        ("gradient clip", train.clip),
        ("sequence length", train.sequence_length),
        ("batch", _batch(settings)),
        ("format of weights and checkpoint", extra.get("dtype", train.dtype)),
        ("seed of the run", settings.seed),
    ]


def _batch(settings: IterateSettings) -> str:
    train = settings.train
    if train.batch_rows is not None:
        return f"{train.batch_rows} rows a step"
    per_step = train.workers * train.accumulation
    return f"{train.tokens_per_batch} tokens × {per_step} a step, {train.batching}"


def _pairs(settings: IterateSettings) -> str:
    """Where the pairs come from; paths of this machine are nobody's business."""
    part = settings.pairs
    made = f"strategy {part.strategy}, by {public(settings.generator.model)}"
    given = [f"those of the run {PurePosixPath(part.from_run).name}"] if part.from_run else []
    given += [f"pairs made elsewhere ({PurePosixPath(path).name})" for path in part.source]
    return "; ".join([*([made] if part.makes else []), *given])


def _set_rows(settings: IterateSettings, record: StageRecord) -> list[tuple[str, Any]]:
    extra, judging = record.extra, settings.judging
    letters: Mapping[str, int] = extra.get("kept_by_letter") or {}
    return [
        ("rows", record.rows_out),
        ("judging", judging.mode),
        ("response pairs", _pairs(settings)),
        ("judgments drawn", f"at most {judging.samples} for each unit, temperature {judging.generation.temperature:g}"),
        ("tried", extra.get("tried")),
        ("kept", extra.get("kept")),
        ("keep rate", _rate(extra.get("keep_rate"))),
        ("kept by letter", ", ".join(f"{name} {n}" for name, n in sorted(letters.items())) or None),
        ("dropped to balance the letters", extra.get("dropped_by_balance")),
        ("seed of the run", settings.seed),
        ("fingerprint", record.fingerprint.digest),
    ]


def _selection(training: StageRecord) -> list[str]:
    candidates = training.extra.get("candidates") or []
    if not candidates:
        return []
    chosen = training.extra.get("selected_step")
    rows = [
        (
            f"{score['step']}{' (this one)' if score['step'] == chosen else ''}",
            _rate(score["accuracy"]),
            _rate(score["first_position_rate"]),
            score["n"],
        )
        for score in candidates
    ]
    return ["## Selection on the validation set\n\n" + _table(("step", "accuracy", "first position", "n"), rows)]


def _scores(evaluations: Sequence[StageRecord], selected: bool) -> list[str]:
    """`selected`: the checkpoint is the best of several on the validation set."""

    def name_of(record: StageRecord) -> str:
        name = str(record.extra.get("set"))
        return name + " (selected on)" * (selected and name == VALIDATION)

    rows = [
        (name_of(record), shown, _rate(figure["value"]), _interval(figure), figure["n"])
        for record in evaluations
        for name, shown in SHOWN.items()
        if (figure := (record.extra.get("headline") or {}).get(name)) and figure["value"] is not None
    ]
    if not rows:
        return []
    rows += [
        (name_of(record), shown, told, None, None)
        for record in evaluations
        for shown, told in _said(record.extra.get("explanations") or {})
    ]
    table = _table(("set", "figure", "value", "95 % interval", "n"), rows)
    flatters = "\n\n*Selected on*: the checkpoint is the best of several on this set, so its figures flatter."
    return ["## Scores\n\n" + table + flatters * any("(selected on)" in row[0] for row in rows)]


def _said(found: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """(what is told, its figure) of what a judge says of a set besides its verdicts, where it was counted."""
    if found.get("explanation_words_median") is not None:
        yield "words besides the verdict (median)", f"{found['explanation_words_median']:g}"
    yield from ((shown, _rate(found[name])) for name, shown in SAID.items() if found.get(name) is not None)


def _interval(figure: Mapping[str, Any]) -> str | None:
    low, high = figure.get("low"), figure.get("high")
    return None if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def _both(first: float | None, last: float | None) -> str | None:
    return None if first is None or last is None else f"{first:.4g}, {last:.4g}"


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; with two columns a row without a value is left out."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        if len(row) == 2 and row[1] is None:
            continue
        lines.append("| " + " | ".join("-" if cell is None else _cell(cell) for cell in row) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _card(front: Mapping[str, Any], *parts: str) -> str:
    header = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n" + "\n\n".join(parts) + "\n"
