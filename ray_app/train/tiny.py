"""Small random copies of a seed model's class: every flag of its config kept, widths and depth shrunk. Pure.

They show in seconds what training would do with the family: which attention it asks for, how its layers treat packed
rows, what becomes of its buffers, its output layer and its tensor names.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Mapping
from typing import Any

VOCABULARY, HEADS, HEAD_DIM, DEEPEST = 128, 4, 16, 10
WIDE, NARROW = 64, 16  # windows that no row of the self-test fills, and that its rows exceed
WINDOWS = ("sliding_window", "attention_chunk_size")
# Numbers that may be made smaller by themselves. What belongs together (heads, ranks) is shrunk below.
CAPS: Mapping[str, int] = {
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 32,
    "ffn_dim": 64,
    "n_inner": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": VOCABULARY,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "mamba_d_ssm": 64,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "block_ff_dim": 64,
    "conv_dim": 64,
    "conv_dim_out": 64,
    "lru_width": 64,
    "num_kv_shared_layers": 0,
}
LISTS_BY_LAYER = ("layer_types", "layers_block_type", "mlp_layer_types", "no_rope_layers", "block_types")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def text_config(config: Any) -> Any:
    """The config of the text model: the config itself, or that part of a multimodal one."""
    return config.get_text_config(decoder=True)


def tiny_config(config: Any, longest: int = 4096) -> Any:
    """A config of the same class, two layers deep (one of each kind, where layers differ), some hundred thousand
    parameters. What it cannot know how to shrink stays as it is.

    `longest`: tokens of the longest row that will be trained. A window that it exceeds is narrow here too, and one that
    it does not stays wide: a kernel without windows is then as right here as it will be there.
    """
    small = copy.deepcopy(config)
    part = text_config(small)
    _shrink_depth(part)
    _shrink_widths(part)
    for name, cap in CAPS.items():
        value = _get(part, name)
        if isinstance(value, int) and not isinstance(value, bool) and value > cap:
            _set(part, name, cap)
    for name in WINDOWS:
        value = _get(part, name)
        if isinstance(value, int) and not isinstance(value, bool):
            _set(part, name, NARROW if value < longest else WIDE)
    _shrink_state_space(part)
    for name in TOKENS:
        value = _get(part, name)
        if isinstance(value, (int, list)):
            _set(part, name, 1 if isinstance(value, int) else [1])
    part.vocab_size = VOCABULARY
    if _get(part, "output_router_logits"):
        part.output_router_logits = False  # the loss of routers is one of whole batches: rows do not add up to it
    return small


def _get(part: Any, name: str) -> Any:
    """A value of a config; None where it has none, or says that it differs from layer to layer."""
    try:
        return getattr(part, name, None)
    except Exception:
        return None


def _set(part: Any, name: str, value: Any) -> None:
    """Set what can be set: some classes compute a value from others, which are shrunk too."""
    with contextlib.suppress(AttributeError):
        setattr(part, name, value)


def _shrink_depth(part: Any) -> None:
    layers = part.num_hidden_layers
    lists = {name: value for name in LISTS_BY_LAYER if len(value := _list(_get(part, name))) == layers}
    kinds = next(iter(lists.values()), [None] * layers)
    first = sorted({str(kind): index for index, kind in reversed(list(enumerate(kinds)))}.values())
    kept = first if len(first) > 1 else list(range(min(2, layers)))
    for name, values in lists.items():
        _set(part, name, [values[index] for index in kept])
    computed = any(len(_list(_get(part, name))) == layers != len(kept) for name in lists)
    depth = min(kept[-1] + 1, DEEPEST) if computed else len(kept)  # kinds that follow from the index: up to the last
    for name in ("max_window_layers", "n_layer", "num_layers", "n_layers"):
        if isinstance(_get(part, name), int):
            _set(part, name, depth)
    part.num_hidden_layers = depth


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _shrink_widths(part: Any) -> None:
    heads = part.num_attention_heads
    shared = _get(part, "num_key_value_heads")
    rope = _get(part, "qk_rope_head_dim")
    by_rope = rope is not None and _get(part, "head_dim") == rope  # multi-head latent attention counts heads by it
    part.num_attention_heads = HEADS
    if isinstance(shared, int):
        _set(part, "num_key_value_heads", max(1, HEADS // math.ceil(heads / shared)))
    for name in ("head_dim", "global_head_dim", "qk_head_dim"):
        if isinstance(_get(part, name), int):
            _set(part, name, CAPS["qk_rope_head_dim"] if by_rope and name == "head_dim" else HEAD_DIM)
    if _get(part, "query_pre_attn_scalar") is not None:
        _set(part, "query_pre_attn_scalar", HEAD_DIM)
    part.hidden_size = HEADS * HEAD_DIM


def _shrink_state_space(part: Any) -> None:
    """Mamba heads fill the inner width, which is a multiple of the model's where it is not given by itself."""
    if isinstance(_get(part, "mamba_n_heads"), int) and _get(part, "mamba_d_ssm") is None:
        _set(part, "mamba_n_heads", int(_get(part, "mamba_expand") or 1) * part.hidden_size // CAPS["mamba_d_head"])
