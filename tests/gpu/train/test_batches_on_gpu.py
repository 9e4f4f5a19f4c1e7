"""Micro-batches reach the GPU as they are. Needs one GPU: `pytest tests/gpu -m gpu`."""

import numpy as np
import pytest
import torch

from ray_app.train.collate import collate
from ray_app.train.data import TokenRows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]
ROWS = TokenRows(
    tokens=np.arange(12, dtype=np.int32), offsets=np.array([0, 5, 12]), prompts=np.array([3, 4], dtype=np.int32)
)


@pytest.mark.parametrize("packed", [True, False])
def test_a_batch_moves_through_pinned_memory(packed):
    batch = collate(ROWS, [0, 1], packed=packed, kernel="ste_varlen")
    moved = batch.to("cuda")
    for name in ("input_ids", "position_ids", "positions", "targets", "row_of_target"):
        assert getattr(moved, name).is_cuda
        assert torch.equal(getattr(moved, name).cpu(), getattr(batch, name))
