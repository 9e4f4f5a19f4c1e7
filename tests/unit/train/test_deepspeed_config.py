"""DeepSpeed accepts our configuration, field by field."""

import pytest

from ray_app.train.deepspeed_config import CPU_BUCKET, deepspeed_config
from ray_app.train.settings import TrainSettings


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"use_gpu": False},
        {"zero": {"stage": 2}},
        {"zero": {"offload": {"optimizer": "cpu", "parameters": "cpu"}}},
        {"zero": {"offload": {"optimizer": "nvme", "parameters": "nvme", "nvme_path": "/nvme"}}},
        {"zero": {"hpz_size": 8}},
    ],
)
def test_every_zero_field_is_one_that_deepspeed_knows(given):
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    section = deepspeed_config(TrainSettings(dtype="bfloat16", **given))["zero_optimization"]
    known = set(DeepSpeedZeroConfig.model_fields) | {
        field.alias for field in DeepSpeedZeroConfig.model_fields.values() if field.alias
    }
    assert set(section) <= known
    DeepSpeedZeroConfig(**section)


def test_cpu_workers_get_small_buckets():
    section = deepspeed_config(TrainSettings(use_gpu=False, dtype="float32"))["zero_optimization"]
    assert section["reduce_bucket_size"] == CPU_BUCKET
    assert section["overlap_comm"] is False


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ({}, "bf16"),
        ({"accumulation": 2}, "fp32"),
        ({"batch_rows": 32}, "fp32"),
        ({"accumulation": 2, "grad_dtype": "bf16"}, "bf16"),
        ({"bf16": False}, "fp32"),
    ],
)
def test_gradients_are_summed_in_fp32_where_there_are_several(given, dtype):
    assert deepspeed_config(TrainSettings(**{"bf16": True, **given}))["data_types"]["grad_accum_dtype"] == dtype
