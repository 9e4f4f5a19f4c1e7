"""Settings of one engine pool (`generator.…`, `first_judge.…`, `judge.…`)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ray_app.base.reasoning import declared
from ray_app.engine.placement import PLACEMENT

SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD")


class EndpointSettings(BaseModel):
    """An OpenAI-compatible server. Its key comes only from the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field("", description="of the API, e.g. http://host:8000/v1")
    api_key_env: str = Field("OPENAI_API_KEY", description="name of the environment variable that holds the key")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="how the server calls the limit of an answer; newer OpenAI models take the second"
    )
    extra_body: dict[str, Any] = Field({}, description="further fields of every request, as they are")
    concurrency: int = Field(64, ge=1, description="requests in flight, a replica")
    max_retries: int = Field(6, ge=0, description="of one request, with back-off")


class EngineSettings(BaseModel):
    """One model, and how it is served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="folder or hub id; for openai: the served model's name")
    kind: Literal["vllm", "openai", "scripted"] = Field(
        "vllm", description="vllm here, an OpenAI-compatible endpoint, or scripted answers for tests"
    )
    revision: str | None = Field(None, description="of a hub id: branch, tag or commit")
    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="auto: a GPU where the cluster has one")
    replicas: int = Field(1, ge=1, description="engines of this role, side by side")
    tensor_parallel: int = Field(1, ge=1, description="GPUs of one replica")
    replicas_per_gpu: int = Field(1, ge=1, description="several engines share a GPU (small models)")
    executor: Literal["mp", "ray"] = Field("mp", description="ray only where a replica spans nodes")
    max_model_len: int | None = Field(None, ge=2, description="prompt and answer, in tokens; null: the model's own")
    max_num_seqs: int = Field(256, ge=1, description="requests that one engine batches")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="auto: bfloat16 where all that does the work has instructions for it, else float32"
    )
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of a GPU's memory that an engine takes")
    cpus: float = Field(1, ge=0, description="CPU cores that Ray sets aside for an engine")
    cpu_threads: int = Field(2, ge=1, description="OpenMP threads of an engine on CPU")
    cpu_kv_cache_gib: int = Field(1, ge=1, description="KV cache of an engine on processors")
    seeded: bool = Field(True, description="give every request its seed; off where seeds cost speed")
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="variables of the model's chat template, e.g. {enable_thinking: false}"
    )
    vllm: dict[str, Any] = Field({}, description="further vLLM engine arguments, as they are")
    env: dict[str, str] = Field({}, description="environment of the engine processes; never for keys")
    endpoint: EndpointSettings = EndpointSettings()
    script: dict[str, Any] = Field({}, description="of the scripted engine (tests)")
    start_timeout_s: float = Field(1800, gt=0, description="limit for all engines of a pool to be ready")
    request_timeout_s: float = Field(
        3600, gt=0, description="limit of one sample, the wait for its turn included; then its row is quarantined"
    )
    stall_timeout_s: float = Field(
        600, gt=0, description="an engine with rows at work that makes no token for so long is ended and started again"
    )

    @model_validator(mode="after")
    def _consistent(self) -> EngineSettings:
        if self.replicas_per_gpu > 1 and self.tensor_parallel > 1:
            raise ValueError("replicas_per_gpu > 1 and tensor_parallel > 1 exclude each other")
        if self.kind == "openai" and not self.endpoint.base_url:
            raise ValueError("endpoint.base_url is missing: kind openai needs a server")
        secret = [name for name in self.env if any(word in name.upper() for word in SECRET_WORDS)]
        if secret:
            raise ValueError(f"env.{secret[0]} looks like a key: settings are written to the run folder; export it")
        return self

    def identity(self, model: str) -> dict[str, Any]:
        """What identifies the served model in a fingerprint, where `model` names its weights. Placement is no part."""
        named = ("kind", "revision", "dtype", "max_model_len", "chat_template_kwargs")
        passed = {name: value for name, value in self.vllm.items() if name not in PLACEMENT}
        known = {"model": model, **self.model_dump(mode="json", include=set(named)), "vllm": passed}
        if self.kind != "vllm" and self.dtype == "auto":
            known["dtype"] = "bfloat16"  # it means nothing there: the default of before there was auto
        return known

    def of_checkpoint(self, folder: str) -> EngineSettings:
        """The same engine with the weights of a checkpoint; a revision is one of a hub model, so it has none."""
        return self.model_copy(update={"model": folder, "revision": None})

    @property
    def reasons(self) -> bool:
        """Whether the model is declared to reason before it answers: by its template's arguments, or by naming vLLM's
        parser of its reasoning.
        """
        said = declared(self.chat_template_kwargs)
        return bool(self.vllm.get("reasoning_parser")) if said is None else said

    @property
    def on_gpu(self) -> bool:
        """Whether an engine takes GPUs (`auto` is resolved by `resolved`). A scripted one does where it is told to, for
        tests of what Ray counts.
        """
        return (self.kind == "vllm" and self.device != "cpu") or (self.kind == "scripted" and self.device == "cuda")

    @property
    def spans_nodes(self) -> bool:
        """Whether the workers of one replica may stand on several nodes."""
        return self.executor == "ray" and self.tensor_parallel > 1

    @property
    def can_sleep(self) -> bool:
        """Whether an engine can give up its GPUs and take them again. With Ray's executor its workers are actors that
        hold GPUs of Ray for as long as they live.
        """
        return self.on_gpu and not self.spans_nodes and self.vllm.get("enable_sleep_mode", True) is not False

    @property
    def gpus_per_replica(self) -> float:
        """Ray GPUs of one replica."""
        return self.tensor_parallel / self.replicas_per_gpu if self.on_gpu else 0

    @property
    def in_flight(self) -> int:
        """Rows that one replica works on at once: enough that its batch never runs dry."""
        return self.endpoint.concurrency if self.kind == "openai" else 2 * self.max_num_seqs

    @property
    def rows_per_call(self) -> int:
        """Rows that one call to a replica holds. A call costs its process about a millisecond, which small models feel;
        a seat waits for the slowest row of its call, which `in_flight` makes up for.
        """
        return 1 if self.kind == "openai" else max(1, min(8, self.max_num_seqs // 64))

    def resolved(self, cluster_gpus: float) -> EngineSettings:
        """`device: auto` as the cluster has it."""
        if self.device != "auto" or self.kind != "vllm":
            return self
        return self.model_copy(update={"device": "cuda" if cluster_gpus else "cpu"})

    def decided(self, dtype: str) -> EngineSettings:
        """`dtype: auto` as the run has decided it."""
        return self.model_copy(update={"dtype": dtype}) if self.dtype == "auto" else self
