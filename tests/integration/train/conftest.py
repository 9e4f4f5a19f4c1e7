"""Real runs on two ZeRO-3 CPU workers, made once for all tests of this folder. What is trained is SmolLM2, whole where
its texts are read, else its first layers (`shallow`): the whole one is trained in tests/integration/test_loop.py too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from local_ray import start_ray

from ray_app.base.schema import TRAIN_DPO, TRAIN_SFT

sys.path.insert(0, str(Path(__file__).parent))

from train_runs import judged, run, small, write_rows


@pytest.fixture(scope="package")
def cluster():
    """Ends with this folder: a Ray left alone for the minutes of the fault tests has hung at its shutdown."""
    import ray

    root = Path(__file__).resolve().parents[3]
    paths = [str(root), str(root / "tests" / "stand_ins"), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:  # Ray's processes are started with it; later tests are not
        patch.setenv("PYTHONPATH", os.pathsep.join(paths).rstrip(os.pathsep))
        start_ray(num_cpus=4, object_store_memory=200 * 2**20, logging_level="WARNING", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def sft_file(tmp_path_factory) -> str:
    rows = [{**row, "completion": row["correct"]} for row in map(judged, range(24))]
    return write_rows(
        tmp_path_factory, "sft", [{name: row.get(name) for name in TRAIN_SFT.names} for row in rows], TRAIN_SFT
    )


@pytest.fixture(scope="session")
def dpo_file(tmp_path_factory) -> str:
    rows = [{**row, "chosen": row["correct"], "rejected": row["wrong"]} for row in map(judged, range(16))]
    return write_rows(
        tmp_path_factory, "dpo", [{name: row.get(name) for name in TRAIN_DPO.names} for row in rows], TRAIN_DPO
    )


@pytest.fixture(scope="package")
def sft_run(cluster, shallow, sft_file, tmp_path_factory):
    """The undisturbed run: 4 steps of 6 rows, a checkpoint every 2 steps, weights in several files."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(small(checkpoint_every=2, export_shard_gib=0.01), folder, sft_file, shallow)
