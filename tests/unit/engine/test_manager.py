"""Which engines take which weights, and as which model they start: by their settings and by whose model it is."""

from __future__ import annotations

from typing import Any

import pytest

from ray_app.engine.manager import base_of, takes
from ray_app.engine.settings import EngineSettings


def engine(model: str = "seed", **more: Any) -> EngineSettings:
    return EngineSettings(**{"model": model, "device": "cuda", "dtype": "bfloat16", **more})


def of_run(model: str) -> bool:
    return model == "seed" or model.startswith("runs/a/")


CHECKPOINT = "runs/a/iter_01/checkpoint"


def test_engines_of_a_run_take_the_weights_of_its_checkpoints() -> None:
    assert takes(engine(), engine(CHECKPOINT), of_run)
    assert takes(engine(CHECKPOINT), engine(), of_run)


@pytest.mark.parametrize("other", ["another-8b", "runs/b/iter_01/checkpoint"])
def test_a_model_with_equal_settings_is_no_kin(other: str) -> None:
    """A generator, say: it may have another tokenizer or template, which an engine keeps from its start."""
    assert not takes(engine(), engine(other), of_run)
    assert not takes(engine(other), engine(), of_run)
    assert base_of(engine(), engine(other), of_run) is None


def test_other_settings_are_another_shape() -> None:
    assert not takes(engine(), engine(CHECKPOINT, max_num_seqs=8), of_run)


def test_a_checkpoint_starts_as_its_seed() -> None:
    assert base_of(engine(), engine(CHECKPOINT), of_run) == "seed"
    assert base_of(engine(), engine(), of_run) is None


@pytest.mark.parametrize(
    "more", [{"device": "cpu"}, {"vllm": {"quantization": "fp8"}}, {"vllm": {"load_format": "runai_streamer"}}]
)
def test_where_a_start_without_weights_is_not_known_to_work_there_is_none(more: dict[str, Any]) -> None:
    assert base_of(engine(**more), engine(CHECKPOINT, **more), of_run) is None
