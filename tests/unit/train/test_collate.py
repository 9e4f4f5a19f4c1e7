"""Tensors of micro-batches: losses sit on completion tokens, shifted by one; padding and packing agree."""

import numpy as np
import pytest
import torch

from ray_app.train.collate import collate
from ray_app.train.data import TokenRows

ROWS = TokenRows(
    tokens=np.arange(100, 112, dtype=np.int32),
    offsets=np.array([0, 5, 12]),
    prompts=np.array([3, 4], dtype=np.int32),
)


def test_packed_lines_restart_positions_and_shift_targets():
    batch = collate(ROWS, [1, 0], packed=True)
    assert batch.input_ids.tolist() == [[105, 106, 107, 108, 109, 110, 111, 100, 101, 102, 103, 104]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]]
    assert batch.targets.tolist() == [109, 110, 111, 103, 104]
    assert batch.input_ids.flatten()[batch.positions].tolist() == [108, 109, 110, 102, 103]
    assert batch.row_of_target.tolist() == [0, 0, 0, 1, 1]
    assert batch.attention["row_lengths"] == (7, 5)


def test_padded_rows_have_the_same_targets():
    packed, padded = collate(ROWS, [1, 0], packed=True), collate(ROWS, [1, 0], packed=False)
    assert padded.input_ids.shape == (2, 7)
    assert padded.targets.tolist() == packed.targets.tolist()
    assert (
        padded.input_ids.flatten()[padded.positions].tolist() == packed.input_ids.flatten()[packed.positions].tolist()
    )
    assert padded.tokens == packed.tokens == 12


def test_filled_lines_have_one_shape_and_no_new_targets():
    batch = collate(ROWS, [0], packed=True, kernel="ste_varlen", pad_to=9)
    assert batch.input_ids.shape == (1, 9)
    assert batch.targets.tolist() == [103, 104]
    assert batch.attention["cu_seqlens"].tolist() == [0, 5, 9]
    assert batch.attention["longest"] == 9


def test_a_share_without_rows_still_runs_every_layer():
    for packed in (True, False):
        batch = collate(ROWS, [], packed=packed)
        assert (batch.rows, batch.tokens) == (0, 0)
        assert batch.input_ids.numel() == 2
        assert len(batch.targets) == 1


def test_changing_the_prompt_leaves_the_targets():
    other = TokenRows(ROWS.tokens.copy(), ROWS.offsets, ROWS.prompts)
    other.tokens[:3] = 7
    assert torch.equal(collate(ROWS, [0], packed=True).targets, collate(other, [0], packed=True).targets)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kernel", ["ste_sdpa", "ste_varlen"])
def test_every_tensor_owns_its_memory(packed, kernel):
    """Pinning, on the way to a GPU, copies into a tensor of the same strides: no element may lie there twice."""
    batch = collate(ROWS, [1, 0], packed=packed, kernel=kernel)
    fields = [getattr(batch, name) for name in batch.__dataclass_fields__]
    tensors = [value for value in [*fields, *batch.attention.values()] if torch.is_tensor(value)]
    assert len(tensors) >= 5
    for tensor in tensors:
        assert tensor.is_contiguous()
        pinned = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
        assert torch.equal(pinned.copy_(tensor), tensor)
