"""Exported folders: complete, finite, of the right shape, or an error that names the fault."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ray_app.train.candidates import move_into_place
from ray_app.train.export import (
    INDEX,
    ExportError,
    plan_shards,
    shard_names,
    verify,
    write_weights,
)

TENSORS = {"a": torch.ones(2, 3), "b": torch.zeros(4), "c": torch.full((2, 2), 2.0)}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


@pytest.fixture
def folder(tmp_path):
    sizes = {name: tensor.numel() * 4 for name, tensor in TENSORS.items()}
    shards = plan_shards(sizes, limit=40)
    assert shards == [["a", "b"], ["c"]]
    stream = ({name: TENSORS[name] for name in names} for names in shards)
    write_weights(stream, shard_names(len(shards)), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_good_folder_passes_and_its_index_is_transformers_own(folder):
    verify(folder, SHAPES)
    index = json.loads((folder / INDEX).read_text())
    assert index["weight_map"]["c"] == "model-00002-of-00002.safetensors"
    assert index["metadata"]["total_size"] == 14 * 4


def test_a_tensor_larger_than_a_shard_has_its_own():
    assert plan_shards({"x": 5, "y": 100, "z": 5}, limit=10) == [["x"], ["y"], ["z"]]


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "model-00002-of-00002.safetensors").unlink(), "tensor c is missing"),
        (lambda f: save_file({"c": torch.full((2, 2), float("nan"))}, f / "model-00002-of-00002.safetensors"), "c has"),
        (lambda f: save_file({"c": torch.ones(4)}, f / "model-00002-of-00002.safetensors"), "c is"),
        (lambda f: save_file({"d": torch.ones(4)}, f / "model-00002-of-00002.safetensors"), "unexpected tensor d"),
        (lambda f: save_file({"a": TENSORS["a"]}, f / "model-00003-of-00002.safetensors"), "already in"),
        (lambda f: (f / INDEX).unlink(), "index.json cannot be read"),
        (lambda f: (f / INDEX).write_text('{"weight_map": {"a": "x"}}'), "does not name every tensor"),
        (lambda f: (f / "model-00001-of-00002.safetensors").write_bytes(b"cut"), "cannot be read"),
    ],
)
def test_damage_is_found_and_named(folder, damage, word):
    damage(folder)
    with pytest.raises(ExportError, match=word):
        verify(folder, SHAPES)


def test_moving_replaces_an_older_folder(tmp_path):
    new, final = tmp_path / "x.partial", tmp_path / "x"
    for path, text in ((new, "new"), (final, "old")):
        path.mkdir()
        (path / "f").write_text(text)
    move_into_place(new, final)
    assert (final / "f").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]
