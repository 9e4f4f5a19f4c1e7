"""What mixtures of experts have besides: the load-balancing loss of routers, and parameters that a token skips."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
CHOSEN = ("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts")


def balancing_weight(config: Any) -> float:
    """Weight of the routers' loss: as transformers' own forward has it, so 0 unless the seed's config sets
    `output_router_logits` (most do not: a fine-tune then leaves the balance of its experts alone).
    """
    part = config.get_text_config(decoder=True)
    return float(getattr(part, "router_aux_loss_coef", 0.0)) if getattr(part, "output_router_logits", False) else 0.0


def balancing_loss(lm: Any, router_logits: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The load-balancing loss of one micro-batch (Switch Transformer, arXiv 2101.03961, equations 4 to 6; all of
    transformers' mixtures share the function). Padding counts as tokens, where rows are padded.
    """
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    loss: torch.Tensor = load_balancing_loss_func(router_logits, lm.num_experts, lm.num_experts_per_tok)
    return loss


def active_parameters(sizes: Iterable[tuple[str, int]], config: Any) -> int:
    """Parameters that a token passes: of routed experts only those it is sent to. `sizes`: (name, numbers) of each."""
    part = config.get_text_config(decoder=True)
    experts, chosen = _first(part, EXPERTS), _first(part, CHOSEN)
    share = chosen / experts if experts and chosen else 1.0
    return round(sum(size * (share if ".experts." in name else 1.0) for name, size in sizes))


def _first(config: Any, names: tuple[str, ...]) -> int | None:
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), None)
