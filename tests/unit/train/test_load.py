"""Seed weights: any flat range of any tensor, and ranks that read disjoint parts."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from ray_app.errors import InputError
from ray_app.train import load
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


class Shard:
    """A parameter as zero.Init leaves it on one rank: a flat part, padded at the end."""

    def __init__(self, whole, world):
        self.shape, self.ds_shape = (0,), whole.shape
        self.ds_numel, self.ds_process_group = whole.numel(), None
        size = -(-whole.numel() // world)
        self.ds_tensor = torch.full((size,), float("nan"))
        self.ds_tensor.ds_numel = size


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_together_hold_the_model_and_each_reads_its_part_only(file, world, monkeypatch):
    read = []
    original = load.read_flat
    monkeypatch.setattr(load, "read_flat", lambda s, start, stop: read.append(stop - start) or original(s, start, stop))
    shards = []
    for rank in range(world):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda group, rank=rank: rank)
        parameters = {str(shape): Shard(torch.empty(shape), world) for shape in SHAPES}
        lm = SimpleNamespace(named_parameters=parameters.items)
        load.fill(lm, dict.fromkeys(parameters, file))
        shards.append(parameters)
    with safe_open(file, framework="pt") as handle:
        for shape in SHAPES:
            whole = handle.get_tensor(str(shape)).flatten()
            joined = torch.cat([parameters[str(shape)].ds_tensor for parameters in shards])
            assert torch.equal(joined[: whole.numel()], whole)
    assert sum(read) == sum(math.prod(shape) for shape in SHAPES)  # every element was read by one rank


def test_a_tensor_of_another_shape_is_named(file):
    lm = SimpleNamespace(named_parameters={"(7,)": torch.empty(8)}.items)
    with pytest.raises(InputError, match=r"tensor \(7,\) has shape \(7,\), the config asks for \(8,\)"):
        load.fill(lm, {"(7,)": file})
