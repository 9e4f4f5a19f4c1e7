"""Training settings (`train.…` in a config file). Rates and lengths default to
those of the paper's 70B run (arXiv 2408.02666, section 4); docs/differences.md says what else is different.

`check` stops everything that can be known to be wrong before a GPU is taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Set as AbstractSet
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

LORA_LR = 1e-4  # adapters start at zero: at full fine-tuning's rate they would hardly move
DPO_DEFAULTS: dict[str, Any] = {"lr": 5.5e-8, "lr_min": 5.5e-8, "sequence_length": 2048, "batch_rows": 32}


class Part(BaseModel):
    """A section of the tree: unknown keys fail, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OffloadSettings(Part):
    """Where ZeRO keeps what does not fit on the GPUs (DeepSpeed's offload_optimizer and offload_param)."""

    optimizer: Literal["none", "cpu", "nvme"] = Field("none", description="where optimizer states live")
    parameters: Literal["none", "cpu", "nvme"] = Field("none", description="ZeRO-3 only")
    nvme_path: str | None = Field(None, description="a folder on each node's local disk")
    pin_memory: bool = Field(True, description="page-locked buffers on the host")


class ZeroSettings(Part):
    """DeepSpeed ZeRO. Buckets and limits count elements, not bytes; docs/training.md says how they were chosen."""

    stage: int = Field(3, ge=2, le=3, description="2 or 3; 3 shards the weights too")
    reduce_bucket: int = Field(500_000_000, ge=1, description="elements of a gradient bucket")
    prefetch_bucket: int = Field(500_000_000, ge=0, description="elements that are gathered ahead")
    persistence_threshold: int = Field(100_000, ge=0, description="parameters up to this size are never sharded")
    max_live: int = Field(3_000_000_000, ge=0, description="gathered parameters kept at once")
    max_reuse_distance: int = Field(
        3_000_000_000, ge=0, description="elements between two uses below which a parameter stays gathered"
    )
    overlap_comm: bool = Field(True, description="reduce gradients while the backward pass goes on")
    block_granularity: bool = Field(True, description="gather one decoder block at once instead of every matrix")
    hpz_size: int = Field(1, ge=1, description="ZeRO++: a second shard inside so many GPUs (one node)")
    offload: OffloadSettings = OffloadSettings()


class LoraSettings(Part):
    """Low-rank adapters (PEFT). The adapters are merged into the exported checkpoint."""

    rank: int = Field(16, ge=1, description="of the factors")
    alpha: int = Field(32, ge=1, description="scale: alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of their input")
    targets: tuple[str, ...] = Field((), description="names of linear layers; empty: all but the output layer")
    quantize: bool = Field(False, description="QLoRA: the frozen base in 4-bit NF4 (bitsandbytes)")
    quant_storage: Literal["bfloat16", "float16", "float32", "uint8"] = Field(
        "bfloat16",
        description="bnb_4bit_quant_storage: ZeRO-3 shards 4-bit weights only if this is the model's dtype",
    )


class DpoSettings(Part):
    """Direct preference optimisation on correct × wrong judgments, as the released model was trained after SFT."""

    beta: float = Field(0.1, gt=0, description="strength of the pull to the reference")
    nll_weight: float = Field(1.5, ge=0, description="weight of the chosen judgments' mean NLL")
    nll_mean: Literal["tokens", "pairs"] = Field(
        "tokens", description="over all chosen tokens of a step, or over its pairs, of each its own tokens' mean"
    )
    pairs_per_prompt: int = Field(
        1, ge=1, description="preferences of one prompt at most: each right judgment once, wrong ones in turn"
    )
    unparsed_as_wrong: bool = Field(False, description="a judgment without a verdict may be the rejected one")

    def covered(self) -> dict[str, Any]:
        """What an identity covers: newer settings where they change something."""
        newer = {"nll_mean", "pairs_per_prompt", "unparsed_as_wrong"}
        same = {name for name in newer if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=same)


class SelectionSettings(Part):
    """Which saved step becomes M(i): best validation accuracy, then position balance, then the earliest."""

    when: Literal["after", "between"] = Field(
        "after",
        description="judge the candidates after training, or between segments of training (stops early)",
    )
    patience: int = Field(0, ge=0, description="stop after so many candidates in a row below the best; 0: never")


class TrackingSettings(Part):
    """Where training curves go. Ray metrics are always exported."""

    to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        ("tensorboard",), description="trackers that get the curves"
    )
    project: str = Field("self-taught-evaluators", description="name of the project there")
    profile_step: int | None = Field(
        None, ge=1, description="write PyTorch's profile of this step (rank 0) beside them"
    )


class TrainSettings(Part):
    """One fine-tune. `recipe: dpo` changes the defaults of lr, sequence length and batch to the release's,
    `lora` those of lr.
    """

    recipe: Literal["sft", "dpo"] = Field(
        "sft", description="SFT on correct judgments, or DPO of correct against incorrect ones"
    )
    start: Literal["seed", "previous"] = Field(
        "seed",
        description="an iteration trains the seed model (the paper), or goes on from the judge of the one before; the "
        "first trains the seed",
    )
    lr: float = Field(1e-6, gt=0, description="peak learning rate; 1e-4 with lora")
    lr_min: float = Field(2e-7, ge=0, description="end of the cosine")
    warmup_steps: int = Field(100, ge=0, description="linear, from 0 to lr")
    betas: tuple[float, float] = Field((0.9, 0.95), description="of AdamW")
    eps: float = Field(1e-8, gt=0, description="of AdamW")
    weight_decay: float = Field(0.1, ge=0, description="of AdamW")
    clip: float = Field(1.0, ge=0, description="of the global gradient norm; 0: off")
    sequence_length: int = Field(4096, ge=2, description="longer rows are quarantined, never cut")
    tokens_per_batch: int = Field(8192, ge=2, description="tokens of one micro-batch on one worker")
    accumulation: int = Field(1, ge=1, description="micro-batches a worker puts into one optimizer step")
    batch_rows: int | None = Field(
        None, ge=1, description="rows (dpo: pairs) of one optimizer step over all workers, however many, instead"
    )
    batching: Literal["packed", "bucketed"] = Field(
        "packed",
        description="rows laid end to end (attention stays inside a row), or padded rows of like length",
    )
    epochs: int = Field(2, ge=1, description="over the training set")
    max_steps: int | None = Field(None, ge=1, description="end after so many optimizer steps")
    checkpoint_every: int = Field(100, ge=0, description="steps between checkpoints (resume, candidates); 0: last only")
    keep_candidates: bool = Field(True, description="export a judge at every checkpoint, where a validation selects")
    export_shard_gib: float = Field(4.0, gt=0, description="of a weight file, and what rank 0 gathers at once")
    log_every: int = Field(1, ge=1, description="steps between points of the curves")
    workers: int = Field(8, ge=1, description="one GPU each, or `cpus_per_worker` CPU cores")
    use_gpu: bool = Field(True, description="one GPU a worker; false: processors")
    cpus_per_worker: float = Field(1, gt=0, description="processors that Ray sets aside for a worker")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="of weights and activations, and of the checkpoint; auto: bfloat16 where all that does the work "
        "has instructions for it, else float32",
    )
    bf16: bool | None = Field(None, exclude=True, description="older name: true is dtype bfloat16, false float32")
    attention: Literal[
        "auto",
        "varlen",
        "sdpa",
        "eager",
        "cudnn",
        "flex",
        "flash_attention_2",
        "flash_attention_3",
        "flash_attention_4",
    ] = Field(
        "auto",
        description="auto: on GPUs (packed) flash_attention_4 where it is installed, else varlen; else sdpa. "
        "cudnn: sdpa held to cuDNN's kernels",
    )
    recompute: Literal["none", "selective", "full"] = Field("full", description="of activations, in the backward pass")
    recompute_every: int = Field(2, ge=2, description="selective: every so manyth block is recomputed")
    kernels: Literal["auto", "liger", "torch"] = Field("auto", description="auto: Liger's fused kernels on GPUs")
    compile: Literal["none", "inductor", "aot_eager"] = Field(
        "none", description="torch.compile of each decoder block; inductor needs a compiler on CPU workers"
    )
    optimizer: Literal["torch", "deepspeed"] = Field("torch", description="fused AdamW; deepspeed's needs nvcc")
    grad_dtype: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of gradients summed over micro-batches; auto: fp32 where a step has several"
    )
    max_failures: int = Field(3, ge=0, description="restarts from the last checkpoint after a worker or node died")
    timeout_s: float = Field(1800, gt=0, description="limit of one collective operation")
    zero: ZeroSettings = ZeroSettings()
    lora: LoraSettings | None = None
    dpo: DpoSettings = DpoSettings()
    selection: SelectionSettings = SelectionSettings()
    tracking: TrackingSettings = TrackingSettings()

    @property
    def in_bf16(self) -> bool:
        """Whether weights and activations are bf16. Raises RuntimeError before `auto` is decided."""
        if self.dtype == "auto":
            raise RuntimeError("train.dtype is still auto: `decided` comes before any work")
        return self.dtype == "bfloat16"

    def decided(self, dtype: str) -> TrainSettings:
        """`dtype: auto` as the run has decided it."""
        return self.model_copy(update={"dtype": dtype}) if self.dtype == "auto" else self

    def covered(self, exclude: AbstractSet[str]) -> dict[str, Any]:
        """What an identity covers, less some fields. A named format has the name it had before there was `auto`; newer
        settings are covered where they change something.
        """
        exclude = {*exclude, "start"} if self.start == "seed" else set(exclude)
        named = self.dtype != "auto"
        covered = self.model_dump(mode="json", exclude={*exclude, "dtype"} if named else exclude)
        covered["dpo"] = self.dpo.covered()
        return {**covered, "bf16": self.in_bf16} if named else covered

    @model_validator(mode="before")
    @classmethod
    def _by_present_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("bf16") is not None and values.get("dtype") == "auto":
            values = {name: value for name, value in values.items() if name != "dtype"}  # auto is the default
        return cls.older_names(values)

    @classmethod
    def older_names(cls, values: Any) -> Any:
        """`bf16` as `dtype`. Raises ValueError where both are given and differ. Settings that come from several places
        are renamed place by place, before they are joined, so that a later one wins by either name.
        """
        if not isinstance(values, dict) or values.get("bf16") is None:
            return values
        try:
            named = TypeAdapter(bool).validate_python(values["bf16"])
        except ValidationError:
            return values  # the field says what is wrong with it
        meant = "bfloat16" if named else "float32"
        given = values.get("dtype", meant)
        if given != meant:
            raise ValueError(f"dtype {given} and bf16 {str(named).lower()}, its older name, exclude each other")
        return {name: value for name, value in values.items() if name != "bf16"} | {"dtype": meant}

    @model_validator(mode="before")
    @classmethod
    def _recipe_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = dict(DPO_DEFAULTS) if values.get("recipe") == "dpo" else {}
        if values.get("lora") is not None and values.get("recipe") != "dpo":
            defaults |= {"lr": LORA_LR, "lr_min": LORA_LR / 10}
            with contextlib.suppress(TypeError, ValueError):  # a rate that is no number is told by its own field
                defaults["lr_min"] = float(values.get("lr", LORA_LR)) / 10
        return {**defaults, **values}
