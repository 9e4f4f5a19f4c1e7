"""cluster.yaml passes Ray's own check (`ray up` has no dry run)."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

PATH = Path(__file__).resolve().parents[2] / "cluster.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(PATH.read_text())


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    workers = prepared["available_node_types"]["gpu_h100x8"]
    assert workers["resources"]["GPU"] == 8
    assert prepared["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_the_check_is_not_empty(config: dict[str, Any]) -> None:
    config["available_node_types"]["gpu_h100x8"]["resources"]["GPU"] = "8"
    with pytest.raises(Exception, match="'8' is not"):
        validate_config(prepare_config(config))


def test_mounted_files_exist(config: dict[str, Any]) -> None:
    missing = [path for path in config["file_mounts"].values() if not (PATH.parent / path).exists()]
    assert missing == []


def test_it_installs_the_locked_gpu_flavour(config: dict[str, Any]) -> None:
    assert any("[gpu]" in command and "gpu.lock" in command for command in config["setup_commands"])
    assert (PATH.parent / "requirements" / "gpu.lock").is_file()
