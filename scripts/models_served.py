"""Does vLLM serve what we export, family by family? Its log-probabilities of given tokens against transformers'.

    make models-served      tries all families of scripts/models.py that are trained right (minutes), writes
                            docs/models_served.json, which docs/models.md shows; fails where it would change

Each is a small random copy of the class, exported under the names that a checkpoint of the loop has. Heads are 64 wide
here: vLLM's attention on processors takes no narrower ones. What vLLM refuses is named with its first words.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1"}
os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "TOKENIZERS_PARALLELISM": "false"}

sys.path.insert(0, str(Path(__file__).parent))

import torch
from models import FAMILIES
from transformers import AutoConfig, AutoModelForCausalLM

from ray_app.errors import first_line
from ray_app.train import tiny
from ray_app.train.export import write_weights
from ray_app.train.gather import stored_buffers
from ray_app.train.self_test import _seeded
from ray_app.train.tensor_names import on_hub

FOUND = Path(__file__).resolve().parents[1] / "docs" / "models_served.json"
HEAD, TOKENS = 64, list(range(3, 35))
TOLERANCE = 1e-3  # of a log-probability, in nats


def exported(config: Any, folder: Path) -> torch.Tensor:
    """Write a model folder; returns log-probabilities of TOKENS after the first, by transformers in fp32."""
    tiny.HEAD_DIM = HEAD
    small = tiny.tiny_config(config)
    small.architectures = None
    lm = AutoModelForCausalLM.from_config(small, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in sorted(lm.named_parameters()):
            if parameter.ndim > 1:
                parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.1, generator=_seeded(name)))
    held = {**{name: p.detach() for name, p in lm.named_parameters()}, **stored_buffers(lm)}
    write_weights(iter([on_hub(lm, held)]), ["model.safetensors"], folder)
    lm.config.architectures = [type(lm).__name__]
    lm.config.save_pretrained(folder)
    ids = torch.tensor([TOKENS])
    with torch.no_grad():
        logits = lm(input_ids=ids, use_cache=False).logits[0].float()
    return logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]


def served(folder: Path) -> torch.Tensor:
    """The same by vLLM."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=str(folder), dtype="float32", skip_tokenizer_init=True, enforce_eager=True, max_model_len=64,
        max_num_seqs=2, seed=0,
    )  # fmt: skip
    try:
        asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        (out,) = llm.generate({"prompt_token_ids": TOKENS}, asked, use_tqdm=False)
        given = out.prompt_logprobs or []
        return torch.tensor([given[i][TOKENS[i]].logprob for i in range(1, len(TOKENS))])
    finally:
        del llm
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


def outcome(family: str, given: dict[str, Any]) -> str:
    """`equal`, how far apart, or why it could not be tried."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            wanted = exported(AutoConfig.for_model(family, **given), folder)
        except Exception as fault:
            return f"not tried: {first_line(fault)[:60]}"
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                found = served(folder)
        except Exception as fault:
            return f"refused: {first_line(fault)[:60]}"
    off = float((found - wanted).abs().max())
    return "equal" if off < TOLERANCE else f"off by {off:.1g}"


def fresh() -> ProcessPoolExecutor:
    """A process of its own."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def main(only: list[str]) -> int:
    before = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    found = dict(before) if only else {}
    process = fresh()
    for family, given in FAMILIES.items():
        if only and family not in only:
            continue
        found[family] = process.submit(outcome, family, given).result()
        print(f"{family:20} {found[family]}", flush=True)
        if found[family].startswith("refused"):  # what vLLM leaves behind would fail the next ones too
            process.shutdown()
            process = fresh()
    process.shutdown()
    FOUND.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0 if found == before else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
