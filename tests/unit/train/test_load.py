"""Reading a flat range of a tensor touches its rows only, and equals slicing the whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from ray_app.train.load import read_flat

SHAPES = [(7,), (5, 4), (3, 2, 5), (1, 6)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("load") / "t.safetensors"
    save_file({str(shape): torch.randn(shape) for shape in SHAPES}, path)
    return path


@given(st.sampled_from(SHAPES), st.data())
def test_any_range_of_any_shape(file, shape, data):
    with safe_open(file, framework="pt") as handle:
        whole = handle.get_tensor(str(shape)).flatten()
        start = data.draw(st.integers(0, whole.numel() - 1))
        stop = data.draw(st.integers(start + 1, whole.numel()))
        assert torch.equal(read_flat(handle.get_slice(str(shape)), start, stop), whole[start:stop])
