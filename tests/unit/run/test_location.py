"""Where a run folder may lie: nothing is lost in Ray's copy of the code, and nothing starts that cannot be finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_app.errors import InputError
from ray_app.run.location import require_kept, resolved_runs

HERE = Path("/home/me/project")
PACKAGE = Path("/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_0")


@pytest.mark.parametrize(
    ("runs", "resolved"),
    [
        ("runs", "/home/me/project/runs"),
        ("/shared/runs", "/shared/runs"),
        ("file:///shared/runs", "/shared/runs"),
        ("~/runs", str(Path.home() / "runs")),
    ],
)
def test_local_paths_become_absolute(runs: str, resolved: str) -> None:
    assert resolved_runs(runs, HERE) == resolved


def test_in_rays_package_only_absolute_paths_hold() -> None:
    assert resolved_runs("/shared/runs", PACKAGE) == "/shared/runs"
    with pytest.raises(InputError, match=r"runs: out/runs is a relative path.* absolute path on a disk"):
        resolved_runs("out/runs", PACKAGE)


def test_an_object_store_holds_a_run() -> None:
    assert resolved_runs("memory://bucket/runs", HERE) == "memory://bucket/runs"
    with pytest.raises(InputError, match="runs: abc://bucket cannot be used: Protocol not known"):
        resolved_runs("abc://bucket", HERE)


def test_so_do_outputs() -> None:
    require_kept("--output", "/shared/v.jsonl", PACKAGE)
    require_kept("--output", "s3://bucket/v.jsonl", PACKAGE)
    require_kept("--output", "v.jsonl", HERE)
    with pytest.raises(InputError, match=r"--output: v.jsonl is a relative path"):
        require_kept("--output", "v.jsonl", PACKAGE)
