"""The same training step through TRL's SFTTrainer, launched without Ray: what `training.py` is compared with.

    torchrun --nproc-per-node 2 benchmarks/training_trl.py --tokenizer DIR [--set recompute=none …] --json out.json

Same shape, rows, micro-batch, ZeRO-3 settings, kernels and MFU formula. Random weights; the tokenizer is only carried.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))
import training as ours
from shapes import shape_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="a local model folder")
    arguments, rest = parser.parse_known_args()
    bench = ours.parse(rest)
    # Read by every Accelerate and DeepSpeed module at import.
    if bench.cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_SIZE", os.environ.get("WORLD_SIZE", "1"))
    from ray_app.train.settings import TrainSettings

    given = {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in bench.set)}
    settings = TrainSettings(**ours.nested({**ours.defaults(bench), **given}))
    points = train(settings, shape_of(bench.shape).config(), bench, arguments.tokenizer)
    if int(os.environ.get("RANK", "0")) == 0:
        ours.report(ours.summary(bench, settings, points), bench.json)
    return 0


def train(settings: Any, shape: dict[str, Any], bench: argparse.Namespace, tokenizer: str) -> list[dict[str, float]]:
    """Train warm-up and measured steps; returns points like those of our own trainer."""
    import deepspeed
    import deepspeed.ops
    import torch
    from datasets import Dataset
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from ray_app.train.attention import restrict_sdpa

    if bench.cpu:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    else:
        restrict_sdpa(settings.attention)
    group = max(1, bench.steps // 3)
    total = -(-bench.warmup // group) * group + 3 * group
    table = ours.random_rows(settings, shape["vocab_size"], total, bench.rows)
    rows = Dataset.from_dict({"input_ids": table.column("tokens").to_pylist()})
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=settings.tokens_per_batch // settings.sequence_length,
            gradient_accumulation_steps=settings.accumulation,
            max_steps=total,
            max_length=settings.sequence_length,
            optim="adamw_torch_fused",
            learning_rate=settings.lr,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.betas[0],
            adam_beta2=settings.betas[1],
            max_grad_norm=settings.clip,
            bf16=settings.in_bf16,
            use_cpu=bench.cpu,
            gradient_checkpointing=settings.recompute == "full",
            gradient_checkpointing_kwargs={"use_reentrant": False},
            use_liger_kernel=not bench.cpu,
            deepspeed=hf_deepspeed(settings),
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        # The trainer's arguments must exist first: they tell transformers to shard the model while it is built.
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**shape),
            dtype=torch.bfloat16 if settings.in_bf16 else torch.float32,
            attn_implementation="sdpa",
        )
        clock = Clock(settings, model, group)
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=rows,
            processing_class=AutoTokenizer.from_pretrained(tokenizer),
            callbacks=[clock.callback()],
        )
        trainer.train()
    return clock.points[-3:]


def hf_deepspeed(settings: Any) -> dict[str, Any]:
    """Our DeepSpeed configuration in the form Accelerate fills in itself; TRL's loop needs its own batch numbers."""
    from ray_app.train.deepspeed_config import deepspeed_config

    config = deepspeed_config(settings)
    for key in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"):
        config[key] = "auto"
    del config["optimizer"]  # the trainer makes its own, from the same numbers
    return config


class Clock:
    """Time, tokens and memory of groups of steps, as `training.py` takes them."""

    def __init__(self, settings: Any, model: Any, group: int) -> None:
        from ray_app.train.mfu import shape_of

        self.settings, self.group = settings, group
        self.parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
        self.shape = shape_of(model.config)
        self.points: list[dict[str, float]] = []
        self.started = time.perf_counter()

    def callback(self) -> Any:
        import torch
        from transformers import TrainerCallback

        clock = self

        class Every(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step % clock.group == 0:
                    if clock.settings.use_gpu:
                        torch.cuda.synchronize()
                    clock.point()

        return Every()

    def point(self) -> None:
        from ray_app.train.mfu import mfu, train_flops

        s = self.settings
        seconds = time.perf_counter() - self.started
        rows = self.group * s.workers * s.accumulation * (s.tokens_per_batch // s.sequence_length)
        lengths = [s.sequence_length] * rows
        point: dict[str, float] = {"tokens_per_second": sum(lengths) / seconds}
        if s.use_gpu:
            import torch

            point["mfu"] = mfu(train_flops(self.parameters, lengths, **self.shape), seconds, s.workers)
            point["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self.points.append(point)
        self.started = time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
