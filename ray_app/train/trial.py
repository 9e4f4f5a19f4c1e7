"""The seed is tried before a token is paid: its chat template, its family, the kernels that were chosen. One Ray task.

It runs where training will (`num_gpus=1` where that is on GPUs), takes some seconds, and its outcome is kept in the
run folder: an attempt that goes on does not repeat it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray

from ray_app.base.local_copy import local_model
from ray_app.base.schema import Message
from ray_app.errors import InputError, RunError, first_line
from ray_app.run import storage
from ray_app.train.launch import worker_environment
from ray_app.train.settings import TrainSettings

log = logging.getLogger(__name__)
FILE = "seed_trial.json"
SLOW, SLOW_DPO = 3e-5, 1e-6  # learning rates below which adapters hardly move
DECIDES = (
    "attention",
    "batching",
    "kernels",
    "compile",
    "use_gpu",
    "dtype",
    "lora",
    "sequence_length",
    "lr",
)  # of `train.…`


@dataclass(frozen=True)
class Trial:
    """What is used of `train.attention` and `train.batching`, and what the user is told."""

    attention: str
    batching: str
    notes: tuple[str, ...]

    def applied(self, settings: TrainSettings) -> TrainSettings:
        """The settings with what was found right."""
        return settings.model_copy(update={"attention": self.attention, "batching": self.batching})


def tried(
    folder: str,
    seed_model: str,
    revision: str | None,
    settings: TrainSettings,
    prompt: Sequence[Message],
    options: Mapping[str, Any],
) -> Trial:
    """The trial of a run's seed, from its folder where it was made before. Raises InputError as `try_seed` does."""
    key = _key(seed_model, revision, settings, prompt, options)
    uri = storage.join(folder, FILE)
    known = storage.read_json(uri) if storage.exists(uri) else {}
    if known.get("key") == key:
        return Trial(known["attention"], known["batching"], tuple(known["notes"]))
    found = _as_task(seed_model, revision, settings, list(prompt), dict(options))
    storage.write_json_atomic(uri, {"key": key, **asdict(found)})
    for note in found.notes:
        log.warning("%s", note)
    how = "packed" if found.batching == "packed" else "padded"
    log.info("the seed can be trained: its chat template, its family (%s rows), its tensor names", how)
    return found


def _as_task(
    seed_model: str, revision: str | None, settings: TrainSettings, prompt: list[Message], options: dict[str, Any]
) -> Trial:
    """`try_seed` where training will run. Raises InputError (the seed), RunError (the machine that tried it)."""
    where: dict[str, Any] = {"num_gpus": 1} if settings.use_gpu else {"num_cpus": 1}
    task = ray.remote(**where, runtime_env={"env_vars": worker_environment(settings)})(try_seed)
    log.info("the seed is tried on %s, before any engine starts", "a GPU" if settings.use_gpu else "a processor")
    try:
        found: Trial = ray.get(task.remote(seed_model, revision, settings, prompt, options))
        return found
    except ray.exceptions.RayTaskError as fault:
        if isinstance(fault.cause, InputError):
            raise fault.cause from None
        raise InputError(f"judge.model: {seed_model} cannot be tried: {first_line(fault.cause)}") from fault
    except ray.exceptions.RayError as fault:
        raise RunError(f"{seed_model} could not be tried, its process ended: {first_line(fault)}") from fault


def _key(
    seed_model: str,
    revision: str | None,
    settings: TrainSettings,
    prompt: Sequence[Message],
    options: Mapping[str, Any],
) -> str:
    covered = [
        seed_model,
        revision,
        settings.model_dump(mode="json", include=set(DECIDES)),
        list(prompt),
        dict(options),
    ]
    return hashlib.sha256(json.dumps(covered, sort_keys=True, default=str).encode()).hexdigest()[:16]


def try_seed(
    seed_model: str, revision: str | None, settings: TrainSettings, prompt: list[Message], options: dict[str, Any]
) -> Trial:
    """Try template, adapters and family. Raises InputError naming what cannot be trained, and what would help."""
    from transformers import AutoConfig, AutoTokenizer

    from ray_app.train.lora import refuse_output_layer
    from ray_app.train.self_test import self_test
    from ray_app.train.template import try_template

    seed_model = local_model(seed_model)
    notes = try_template(AutoTokenizer.from_pretrained(seed_model, revision=revision), prompt, options)
    config = AutoConfig.from_pretrained(seed_model, revision=revision)
    refuse_wrappers(config)
    refuse_quantized(config, settings)
    lm = skeleton(config)
    notes += try_names(lm, seed_model, revision)
    if settings.lora is not None:
        refuse_output_layer(lm, settings.lora)
        notes += slow_adapters(settings)
    found = self_test(config, settings)
    return Trial(found.attention, found.batching, (*notes, *([found.note] if found.note else [])))


def slow_adapters(settings: TrainSettings) -> list[str]:
    """A note where adapters would learn at full fine-tuning's rate."""
    if settings.lr >= (SLOW_DPO if settings.recipe == "dpo" else SLOW):
        return []
    usual = "5e-6" if settings.recipe == "dpo" else "1e-4"
    return [f"train.lr {settings.lr:g} is a rate of full fine-tuning: adapters (train.lora) learn at about {usual}"]


def try_names(lm: Any, seed_model: str, revision: str | None) -> list[str]:
    """Notes on tensors of the seed that an export would leave out. Raises InputError where it would have others."""
    from ray_app.train.export import describe
    from ray_app.train.load import tensor_names
    from ray_app.train.tensor_names import left_out_names, shapes_on_hub, unknown_names

    own = tensor_names(seed_model, revision)
    if own is None:
        return []
    exported = shapes_on_hub(lm, describe(lm))
    if unknown := unknown_names(lm, exported, own):
        raise InputError(
            f"judge.model: a {lm.config.model_type} cannot be exported as it came: {unknown[0]} is not in its files "
            f"({len(unknown)} such tensors)"
        )
    left_out = left_out_names(lm, exported, own)
    said = f"{seed_model}: {len(left_out)} tensors of its files are no part of the language model and not exported"
    return [f"{said} ({left_out[0]})"] if left_out else []


def refuse_quantized(config: Any, settings: TrainSettings) -> None:
    """Raises InputError for weights that are stored quantized: full fine-tuning needs them as numbers."""
    method = (getattr(config, "quantization_config", None) or {}).get("quant_method")
    by_adapters = settings.lora is not None and settings.lora.quantize and method == "bitsandbytes"
    if method and not by_adapters:
        raise InputError(
            f"judge.model: its weights are stored quantized ({method}), which cannot be trained: take a copy of the "
            "seed in bfloat16"
        )


def refuse_wrappers(config: Any) -> None:
    """Raises InputError for a multimodal model: its text part alone would be trained, and exported as another model."""
    if config.get_text_config(decoder=True) is not config:
        part = config.get_text_config(decoder=True).model_type
        raise InputError(
            f"judge.model: a {config.model_type} wraps a text model ({part}) in a multimodal one, which cannot be "
            "trained yet: take a seed that is the text model alone"
        )


def skeleton(config: Any) -> Any:
    """The whole model without its weights: names and shapes."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        return AutoModelForCausalLM.from_config(config)
