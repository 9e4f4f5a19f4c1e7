"""A second checkpoint of the real model's shape, one engine for all tests that can share it, and their local Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.data
from local_ray import start_ray

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import PairwiseRow
from ray_app.engine.base import Sampling
from ray_app.engine.manager import PoolManager
from ray_app.engine.settings import EngineSettings
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.generation.programs.rows import judge_messages, pairwise_units

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def trained(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of the same shape with other weights, as training would leave it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(tmp_path_factory.mktemp("trained"))
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in net.model.layers.parameters():
            noise = torch.randn(weights.shape, generator=generator, dtype=torch.float32)
            weights.add_((noise * weights.float().std() * 0.05).to(weights.dtype))
    net.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), before) if p)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    start_ray(num_cpus=4, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session")
def engine(model: str) -> Callable[..., EngineSettings]:
    """float32, so that greedy text does not hang on a last bit."""

    def make(**more: Any) -> EngineSettings:
        given: dict[str, Any] = {
            "model": model,
            "device": "cpu",
            "dtype": "float32",
            "max_model_len": 1024,
            "max_num_seqs": 16,
            "cpu_threads": 1,  # another test has the other core
        }
        return EngineSettings(**{**given, **more})

    return make


@pytest.fixture(scope="package")
def manager(cluster: None) -> Iterator[PoolManager]:
    """The one engine of all tests that can share it: `manager.get("judge", engine())` puts the seed's weights in it."""
    pools = PoolManager("t", may_grow=False)
    yield pools
    pools.close()


@pytest.fixture(scope="session")
def by_transformers() -> Callable[[str, JudgeProgram, list[dict[str, Any]]], list[str]]:
    """Greedy texts of a program's prompts, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def answers(model: str, program: JudgeProgram, rows: list[dict[str, Any]]) -> list[str]:
        tokenizer = AutoTokenizer.from_pretrained(model)
        net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        texts = []
        for row in rows:
            ids = tokenizer.apply_chat_template(
                judge_messages(program.prompt, row), add_generation_prompt=True, return_tensors="pt", return_dict=False
            )
            out = net.generate(ids, max_new_tokens=program.sampling.max_tokens, do_sample=False)
            texts.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
        return texts

    return answers


@pytest.fixture
def units() -> Callable[[int], list[dict[str, Any]]]:
    """Judging units from the demo's pairs, as rows of the judgments table."""

    def make(pairs: int) -> list[dict[str, Any]]:
        from ray_app.benchmarks import load_benchmark

        rows: list[PairwiseRow] = load_benchmark(f"demo={ROOT / 'configs/demo/test.jsonl'}", pairs).rows
        return [{**u, "pair_id": u["id"]} for row in rows for u in pairwise_units("demo", row)]

    return make


@pytest.fixture
def greedy() -> JudgeProgram:
    return judge(Sampling(temperature=0, top_p=1, max_tokens=24))


@pytest.fixture
def sampled() -> JudgeProgram:
    return judge(Sampling(temperature=0.7, top_p=1, max_tokens=24), mode="all", samples=2)


def judge(sampling: Sampling, mode: Any = "all", samples: int = 1) -> JudgeProgram:
    return JudgeProgram(
        prompt=load_prompt("judge_pairwise_small"),
        sampling=sampling,
        mode=mode,
        samples=samples,
        judge="smollm2",
        run_seed=1,
        iteration=1,
        stage="judgments",
        key=("pair_id", "order"),
    )
