"""A mixture of experts through DeepSpeed: SmolLM2's layers as equal experts lose what SmolLM2 does, and are exported as
they came.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mixture import lay_into_mixture
from safetensors.torch import load_file
from train_runs import run, small


@pytest.mark.long
def test_equal_experts_train_as_the_dense_model_and_keep_the_hubs_names(
    sft_run: Any, sft_file: str, shallow: str, tmp_path: Path
) -> None:
    _, dense = sft_run
    seed = tmp_path / "mixture"
    lay_into_mixture(Path(shallow), seed)
    result = run(small(max_steps=1), tmp_path, sft_file, str(seed))
    assert result.losses[0] == pytest.approx(dense.losses[0], rel=2e-3)
    before, after = load_file(seed / "model.safetensors"), load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert after.keys() == before.keys()
    moved = {name: not torch.equal(after[name], before[name].to(after[name].dtype)) for name in after}
    experts = [name for name in moved if ".experts." in name]
    assert len(experts) == 2 * 4 * 3
    assert all(moved[name] for name in experts)
