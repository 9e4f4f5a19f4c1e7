"""The writer as an actor of a real Ray; what it does with units is shown by tests/unit/run/test_writer_actor.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from closed import closed_units
from finished_units import SCHEMA, quarantined, result

from ray_app.errors import RunError
from ray_app.run import lease as lease_module
from ray_app.run import writer_actor
from ray_app.run.lease import Lease
from ray_app.run.shards import row_counts
from ray_app.run.writer_actor import Table, start_writer

pytestmark = pytest.mark.usefixtures("cluster")


def test_it_is_on_this_node_and_keeps_to_the_lease(tmp_path: Path) -> None:
    with Lease(str(tmp_path)) as lease:
        writer = writer_actor.start_writer([Table(str(tmp_path / "pairs"), SCHEMA)], lease.fence)
        ray.get([writer.add.remote([(0, result(f"u{i}", 3)), (0, quarantined(f"q{i}"))]) for i in range(100)])
        assert ray.get(writer.progress.remote())["units"] == 200
        assert ray.get(writer.finish.remote())[0]["samples"] == 100
        assert row_counts(str(tmp_path / "pairs")) == (300, {"empty": 100})

        fenced = start_writer([Table(str(tmp_path / "other"), SCHEMA)], lease.fence)
        ray.get(fenced.add.remote([(0, result("a"))]))
        lease_module.storage.write_json_atomic(lease.uri, {"owner": "other", "pid": 1, "host": "elsewhere"})
        with pytest.raises(RunError, match="another driver took over"):
            ray.get(fenced.finish.remote())
    assert closed_units(str(tmp_path / "other"), ["id"]) == set()
