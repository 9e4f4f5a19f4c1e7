"""What a judge is: its model, its prompt, and how it is sampled.

A checkpoint of this project carries `judge.json`, which is written and read here and used by itself. Any other model is
a judge with a prompt file (`--prompt FILE`, or the shipped one of its mode).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_app.base.model_files import JUDGE_CARD, model_identity, require_model
from ray_app.base.prompts import Prompt, load_prompt, prompt_from, require_shown
from ray_app.base.reasoning import may_reason, template_of
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError
from ray_app.judging.settings import Mode
from ray_app.run import storage

log = logging.getLogger(__name__)
FORMAT = 1  # of judge.json; a later one is refused by name
SHIPPED_PROMPTS: dict[str, str] = {"pairwise": "judge_pairwise", "pointwise": "judge_single"}
PROMPT_USES: dict[str, str] = {"pairwise": "judge", "pointwise": "judge_single"}  # what a mode's prompt must show


@dataclass(frozen=True)
class BestOfPrompts:
    """The prompts of best-of rows: one that asks for a letter of four, one that asks for a rating."""

    letter: Prompt
    rating: Prompt

    def hashes(self) -> dict[str, str]:
        """Identity of their wordings, by the names of their files."""
        return {"judge_best_of": self.letter.hash, "judge_single": self.rating.hash}


def shipped_best_of() -> BestOfPrompts:
    """The prompts of best-of rows as they are shipped."""
    return BestOfPrompts(load_prompt("judge_best_of", "judge_best_of"), load_prompt("judge_single", "judge_single"))


@dataclass(frozen=True)
class Judge:
    """A judge ready to be served. Its prompts are read when it is made, and never again."""

    engine: EngineSettings
    prompt: Prompt
    stop_after_verdict: bool
    mode: Mode = "pairwise"
    name: str = ""  # in the rows it judges; default: its model
    best_of: BestOfPrompts = field(default_factory=shipped_best_of)

    @property
    def named(self) -> str:
        """Its name in the rows it judges."""
        return self.name or self.engine.model

    def identity(self) -> dict[str, Any]:
        """What a fingerprint covers of a judge."""
        return {
            "path": self.engine.model,  # folders of one shape may differ in nothing that an identity reads
            "prompt": self.prompt.hash,
            **self.engine.identity(model_identity(self.engine.model)),
            "stop_after_verdict": self.stop_after_verdict,
            "mode": self.mode,
        }


def judge_of(
    engine: EngineSettings, prompt: str | None, stop_after_verdict: bool | None, mode: Mode | None = None
) -> Judge:
    """The judge behind `engine.model`; what is given wins over `judge.json`, which wins over the defaults.

    Raises InputError naming the model or the prompt file that cannot be used.
    """
    if engine.kind == "vllm":
        require_model(engine.model, "model")
    card = read_card(engine.model)
    trained: Mode = card.get("mode", "pairwise")
    mode = mode or trained
    use = PROMPT_USES[mode]
    if prompt is not None:
        chosen = load_prompt(prompt, use)
    else:
        chosen = prompt_from(card["prompt"]) if card and mode == trained else load_prompt(SHIPPED_PROMPTS[mode], use)
    updates: dict[str, Any] = {}
    if card and engine.max_model_len is None and card.get("max_model_len"):
        updates["max_model_len"] = card["max_model_len"]
    if card and not engine.chat_template_kwargs:
        updates["chat_template_kwargs"] = card.get("chat_template_kwargs", {})
    engine = engine.model_copy(update=updates)
    # Other template arguments than the judge was trained with may turn its reasoning on.
    by_itself = card.get("stop_after_verdict", True) and not engine.reasons
    stop = by_itself if stop_after_verdict is None else stop_after_verdict
    warn_of_reasoning({"engine": engine}, stop)
    return Judge(engine, chosen, stop, mode)


def warn_of_reasoning(engines: Mapping[str, EngineSettings], stop: bool) -> None:
    """Warn of judges whose reasoning a stop at the verdict may cut; `engines` by the setting that holds them."""
    for name, engine in engines.items() if stop else ():
        if engine.reasons or may_reason(template_of(engine.model), engine.chat_template_kwargs):
            log.warning(
                "%s.model %s may reason in <think>, and stop_after_verdict would cut that at the first verdict it "
                "weighs: turn it off, or say %s.chat_template_kwargs {enable_thinking: false}",
                *(name, engine.model, name),
            )


def read_card(model: str) -> dict[str, Any]:
    """`judge.json` of a local checkpoint; empty for any other model.

    Raises InputError when it is damaged, or of a format that this version does not know.
    """
    uri = storage.join(model, JUDGE_CARD)
    try:
        if not storage.exists(uri):
            return {}
        card: dict[str, Any] = storage.read_json(uri)
        known = card.get("format", FORMAT)
        if not isinstance(known, int) or known > FORMAT:
            raise InputError(f"{uri} has format {known}; this version reads format {FORMAT}: use a newer one")
        require_shown(prompt_from(card["prompt"]), PROMPT_USES[card.get("mode", "pairwise")])
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(f"{uri} is damaged: {fault}") from fault
    return card


def write_card(checkpoint: str, judge: Judge, **more: Any) -> None:
    """`judge.json` of a checkpoint: the prompt, parser and sampling that this judge was trained for.

    `more` says where it comes from: run, iteration, seed_model, parser, generation, train_set.
    """
    card = {
        "format": FORMAT,
        "run": more["run"],
        "iteration": more["iteration"],
        "seed_model": more["seed_model"],
        "mode": judge.mode,
        "prompt": judge.prompt.to_dict(),
        "parser": more["parser"],
        "stop_after_verdict": judge.stop_after_verdict,
        "generation": more["generation"],
        "chat_template_kwargs": judge.engine.chat_template_kwargs,
        "max_model_len": judge.engine.max_model_len,
        "train_set": more["train_set"],
    }
    storage.write_json_atomic(storage.join(checkpoint, JUDGE_CARD), card)
