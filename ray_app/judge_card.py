"""What a judge is: its model, its prompt, and how it is sampled.

A checkpoint of this project carries `judge.json`, which is used by itself. Any other model is a judge with a prompt
file (`--prompt FILE`, or the shipped one of its mode: `judge_pairwise`, `judge_single`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError
from ray_app.model_files import model_identity, require_model
from ray_app.programs.judge import JudgeProgram
from ray_app.programs.score import ScoreProgram
from ray_app.prompts import Prompt, load_prompt, prompt_from
from ray_app.reasoning import may_reason, template_of
from ray_app.run import storage
from ray_app.runner import sampling_from
from ray_app.verdict import SCORES

log = logging.getLogger(__name__)
Mode = Literal["pairwise", "pointwise"]
CARD = "judge.json"
SHIPPED_PROMPTS: dict[str, str] = {"pairwise": "judge_pairwise", "pointwise": "judge_single"}
BEST_OF_PROMPT = "judge_best_of"


@dataclass(frozen=True)
class Judge:
    """A judge ready to be served."""

    engine: EngineSettings
    prompt: Prompt
    stop_after_verdict: bool
    mode: Mode = "pairwise"
    name: str = ""  # in the rows it judges; default: its model

    def identity(self) -> dict[str, Any]:
        """What a fingerprint covers of a judge."""
        return {
            "path": self.engine.model,  # folders of one shape may differ in nothing that an identity reads
            "prompt": self.prompt.hash,
            **self.engine.identity(model_identity(self.engine.model)),
            "stop_after_verdict": self.stop_after_verdict,
            "mode": self.mode,
        }

    def program(self, generation: Any, votes: int, seed: int, early_stop: bool) -> JudgeProgram:
        """The voting program of this judge. `generation` is a `SamplingSettings`."""
        return self._voting(self.prompt, generation, votes, seed, early_stop)

    def best_of_program(self, generation: Any, votes: int, seed: int) -> JudgeProgram:
        """The program that picks one of four responses by letter; all votes are drawn."""
        return self._voting(load_prompt(BEST_OF_PROMPT), generation, votes, seed, early_stop=False)

    def scoring_program(self, generation: Any, samples: int, seed: int) -> ScoreProgram:
        """The program that scores single responses."""
        pointwise = self.mode == "pointwise"
        return ScoreProgram(
            prompt=self.prompt if pointwise else load_prompt(SHIPPED_PROMPTS["pointwise"]),
            sampling=sampling_from(generation, self.stop_after_verdict, SCORES),
            samples=samples,
            judge=self.name or self.engine.model,
            run_seed=seed,
            iteration=0,
            stage="evaluation",
            key=("benchmark", "id"),
        )

    def _voting(self, prompt: Prompt, generation: Any, votes: int, seed: int, early_stop: bool) -> JudgeProgram:
        return JudgeProgram(
            prompt=prompt,
            sampling=sampling_from(generation, self.stop_after_verdict, prompt.letters),
            mode="votes",
            samples=votes,
            judge=self.name or self.engine.model,
            run_seed=seed,
            iteration=0,
            stage="evaluation",
            key=("benchmark", "id", "order"),
            early_stop=early_stop,
        )


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
    if prompt is not None:
        chosen = load_prompt(prompt)
    else:
        chosen = prompt_from(card["prompt"]) if card and mode == trained else load_prompt(SHIPPED_PROMPTS[mode])
    updates: dict[str, Any] = {}
    if card and engine.max_model_len is None and card.get("max_model_len"):
        updates["max_model_len"] = card["max_model_len"]
    if card and not engine.chat_template_kwargs:
        updates["chat_template_kwargs"] = card.get("chat_template_kwargs", {})
    engine = engine.model_copy(update=updates)
    # Other template arguments than the judge was trained with may turn its reasoning on.
    by_itself = card.get("stop_after_verdict", True) and not engine.reasons
    stop = by_itself if stop_after_verdict is None else stop_after_verdict
    tell_reasoning({"engine": engine}, stop)
    return Judge(engine, chosen, stop, mode)


def tell_reasoning(engines: Mapping[str, EngineSettings], stop: bool) -> None:
    """Warn of judges whose reasoning a stop at the verdict may cut; `engines` by the setting that holds them."""
    for name, engine in engines.items() if stop else ():
        if engine.reasons or may_reason(template_of(engine.model), engine.chat_template_kwargs):
            log.warning(
                "%s.model %s may reason in <think>, and stop_after_verdict would cut that at the first verdict it "
                "weighs: turn it off, or say %s.chat_template_kwargs {enable_thinking: false}",
                *(name, engine.model, name),
            )


def read_card(model: str) -> dict[str, Any]:
    """`judge.json` of a local checkpoint; empty for any other model. Raises InputError when it is damaged."""
    uri = storage.join(model, CARD)
    try:
        if not storage.exists(uri):
            return {}
        card: dict[str, Any] = storage.read_json(uri)
        prompt_from(card["prompt"])
    except (ValueError, KeyError, TypeError) as fault:
        raise InputError(f"{uri} is damaged: {fault}") from fault
    return card
