"""What the code of commit 8287728 made, kept in `fixtures/recorded/`: later code must make the same, and go on with it.

    python tests/recorded.py      # writes the fixtures anew: only on the commit whose behaviour is the measure

Recorded are fingerprints of the shipped configs, seeds, run folders of scripted engines in each mode (with real
training of a tiny random model), the files of `judge` and `evaluate`, `judge.json`, and answers over HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "tests" / "fixtures" / "recorded"
FOLDERS = HOME / "folders.tar.xz"  # the run folders and what `judge` and `evaluate` left, by RUNS and JUDGED
PLACE = Path("tests/fixtures/recorded")  # as settings name it: commands run in the repository's root
TINY = str(PLACE / "tiny_model")
QUIET = {"num_cpus": 4, "object_store_gib": 0.1, "dashboard": False}
SCRIPT = {"p": [0.9, 0.5, 0.1], "unparsed": 0.1}
TRAINING = {
    "lr": 1e-3,
    "lr_min": 1e-4,
    "warmup_steps": 1,
    "epochs": 1,
    "sequence_length": 4096,
    "tokens_per_batch": 4096,
    "recompute": "none",
    "workers": 2,
    "use_gpu": False,
    "bf16": False,
    "max_steps": 2,
    "checkpoint_every": 0,
}
SEEDS = [
    [0, 1, "judgments", "0123456789abcdef", "chosen_first", 0],
    [0, 1, "judgments", "0123456789abcdef", "rejected_first", 14],
    [7, 5, "pairs", "i", "", 0],
    [1, 0, "evaluation", "validation:x", "ab", 31],
    [3, 2, "training", "", "", 0],
]


def scripted(model: str = "scripted", **more: Any) -> dict[str, Any]:
    return {
        "model": model, "kind": "scripted", "cpus": 0.5, "max_num_seqs": 8, "dtype": "float32", "script": SCRIPT, **more
    }  # fmt: skip


def settings_of(name: str, **more: Any) -> dict[str, Any]:
    """A config of one recorded run."""
    best_of = "rewardbench2=tests/fixtures/benchmarks/rewardbench2.jsonl"
    base: dict[str, Any] = {
        "name": name,
        "iterations": 1,
        "seed": 3,
        "ray": QUIET,
        "generator": scripted(),
        "judge": scripted(TINY),
        "prompts": {"judge": "judge_pairwise_small"},
        "instructions": {"source": str(PLACE / "instructions.jsonl"), "heldout_fraction": 0.2},
        "judging": {"samples": 4},
        "train": TRAINING,
        "evaluation": {"validation": f"validation={PLACE}/validation.jsonl", "test": [best_of]},
    }
    return base | more


RUNS: dict[str, dict[str, Any]] = {
    "pairwise": settings_of(
        "pairwise",
        first_judge=scripted("first"),
        train=TRAINING | {"checkpoint_every": 1},
        pools={"side_by_side": "never"},
    ),
    "pointwise": settings_of("pointwise", judging={"samples": 3, "mode": "pointwise"}),
    "dpo": settings_of(
        "dpo", judging={"samples": 3, "sampling": "all"}, train=TRAINING | {"recipe": "dpo", "tokens_per_batch": 8192}
    ),
    "refresh": settings_of(
        "refresh", pairs={"refresh": "each_iteration", "strategy": "worse_response"}, evaluation={"heldout": True}
    ),
    "one_call": settings_of(
        "one_call",
        iterations=0,
        instructions={"source": str(PLACE / "instructions.jsonl"), "classify": True},
        pairs={"format": "one_call"},
        evaluation={"validation": f"validation={PLACE}/validation.jsonl", "votes": 5},
    ),
}
ENGINE = ["--model", "scripted", "--engine.kind", "scripted", "--engine.script", json.dumps(SCRIPT)]
ENGINE += ["--engine.dtype", "float32", "--seed", "3", "--ray.object_store_gib", "0.1", "--no-ray.dashboard"]
PAIRS = f"{PLACE}/validation.jsonl"
JUDGED: dict[str, list[str]] = {
    "judge_pairwise": ["judge", *ENGINE, "--input", PAIRS, "--votes", "5", "--explanations"],
    "judge_greedy": ["judge", *ENGINE, "--input", PAIRS],
    "judge_pointwise": ["judge", *ENGINE, "--input", PAIRS, "--votes", "3", "--mode", "pointwise"],
    "evaluate": [
        "evaluate",
        *ENGINE,
        "--votes",
        "3",
        "--benchmark",
        f"validation={PAIRS}",
        "rewardbench2=tests/fixtures/benchmarks/rewardbench2.jsonl",
        "rewardbench=tests/fixtures/benchmarks/rewardbench.jsonl",
    ],
}
PAIR = {"instruction": "Name a fruit.", "response_a": "GOOD apple", "response_b": "brick"}
REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/health", None),
    ("POST", "/judge", PAIR),
    ("POST", "/judge", {**PAIR, "id": 7, "explanations": True, "votes": 2}),
    ("POST", "/judge", {"pairs": [{**PAIR, "id": "good"}, {**PAIR, "id": "bad", "instruction": ""}]}),
    ("POST", "/judge", {**PAIR, "instruction": [{"role": "user", "content": "Name a fruit."}]}),
    ("POST", "/judge", {**PAIR, "extra": 1}),
    ("POST", "/judge", {**PAIR, "instruction": ""}),
    ("POST", "/judge", {"pairs": [{**PAIR, "id": "x"}, {**PAIR, "id": "x"}]}),
    ("POST", "/judge", "no json"),
    ("GET", "/nothing", None),
]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS" and not k.startswith("STE_")}
    return kept | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def call(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=environment(), check=True)


def fingerprints(*more: str, only: str = "*.yaml") -> dict[str, Any]:
    """{config: {step: its fingerprint}} of the configs as they were shipped; models by name, wherever they are.

    `more` are options: a setting that is newer than the record may have to be set to what it was.
    """
    from ray_app.command.load_settings import load_settings
    from ray_app.loop.config import IterateSettings
    from ray_app.loop.steps import steps_of
    from ray_app.run.folder import RunFolder

    os.chdir(ROOT)
    found = {}
    for file in sorted((HOME / "configs").glob(only)):
        options = ["--config", str(file), *more]
        if "smollm2" in file.name:
            options += ["--generator.model", "hub/smollm2", "--judge.model", "hub/smollm2"]
        settings = load_settings(IterateSettings, options)
        found[file.name] = {
            str(step): {**step.fingerprint.model_dump(mode="json"), "digest": step.fingerprint.digest}
            for step in steps_of(settings, RunFolder("runs/x"))
        }
    return found


def seeds() -> list[Any]:
    from ray_app.base.schema import derive_seed

    return [[*arguments, derive_seed(*arguments)] for arguments in SEEDS]


def write_tiny_model() -> None:
    """A Llama of a few thousand random weights, with a byte-level tokenizer: what training and exports need."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1], pad_token=special[1]
    )
    wrapped.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(wrapped),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(HOME / "tiny_model")
    wrapped.save_pretrained(HOME / "tiny_model")


def run_loops() -> None:
    """Every run of RUNS, made under a path that says nothing of this machine."""
    runs = Path("/srv/ste/runs")
    for name, settings in RUNS.items():
        shutil.rmtree(runs / name, ignore_errors=True)
        config = runs / f"{name}.yaml"
        runs.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(settings))
        call("ray_app.iterate", "--config", str(config), "--runs", str(runs))
        shutil.rmtree(HOME / "runs" / name, ignore_errors=True)
        shutil.copytree(runs / name, HOME / "runs" / name, ignore=shutil.ignore_patterns("events.out*", "tokenizer*"))


def judge_files() -> None:
    for name, arguments in JUDGED.items():
        out = HOME / "judged" / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        target = out if arguments[0] == "evaluate" else out / "verdicts.jsonl"
        call(f"ray_app.{arguments[0]}", *arguments[1:], "--output", str(target.relative_to(ROOT)))


def http_answers() -> list[dict[str, Any]]:
    """What a served judge answers, in order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "ray_app.judge", "--serve", "--http.port", str(port), *ENGINE, "--votes", "3"]
    process = subprocess.Popen(line, cwd=ROOT, env=environment(), start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while _ask(port, "GET", "/health", None)[0] != 200:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        found = []
        for method, path, body in REQUESTS:
            status, answer = _ask(port, method, path, body)
            found.append({"method": method, "path": path, "body": body, "status": status, "answer": answer})
        return found
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def _ask(port: int, method: str, path: str, body: Any) -> tuple[int, Any]:
    data = (
        None if body is None else (body if isinstance(body, str) and body == "no json" else json.dumps(body)).encode()
    )
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            status, text = reply.status, reply.read().decode()
    except urllib.error.HTTPError as fault:
        status, text = fault.code, fault.read().decode()
    except OSError:
        return 0, None
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def main() -> None:
    write_tiny_model()
    (HOME / "fingerprints.json").write_text(json.dumps(fingerprints(), indent=1, sort_keys=True) + "\n")
    (HOME / "seeds.json").write_text(json.dumps(seeds(), indent=1) + "\n")
    run_loops()
    judge_files()
    with tarfile.open(FOLDERS, "w:xz") as packed:
        for name in ("runs", "judged"):
            packed.add(HOME / name, name)
            shutil.rmtree(HOME / name)
    (HOME / "http.json").write_text(json.dumps(http_answers(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
