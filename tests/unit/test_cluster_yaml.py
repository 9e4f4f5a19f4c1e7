"""cluster.yaml passes Ray's own check (`ray up` has no dry run)."""

import copy
import os
import shutil
import subprocess
import sys
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


def test_set_up_again_changes_nothing(config: dict[str, Any], tmp_path: Path) -> None:
    """`ray up` runs the set-up commands again on a node that it restarts."""
    (command,) = [line for line in config["setup_commands"] if ".bashrc" in line]
    profile = tmp_path / ".bashrc"
    profile.write_text("case $- in *i*) ;; *) return;; esac\n")
    texts = []
    for _ in range(2):
        subprocess.run(["bash", "-c", command], env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, check=True)
        texts.append(profile.read_text())
    assert texts[0] == texts[1]
    assert texts[0].startswith('export PATH="$HOME/venv/bin:$PATH"')
    assert texts[0].endswith("esac\n")


def test_nodes_need_only_what_is_mounted(config: dict[str, Any], tmp_path: Path) -> None:
    """Configs come with the job, to its driver; engines and trainers never look for them."""
    for there, here in config["file_mounts"].items():
        target = tmp_path / Path(there).name
        copy = shutil.copytree if (PATH.parent / here).is_dir() else shutil.copyfile
        copy(PATH.parent / here, target)
    assert not (tmp_path / "configs").exists()
    programs = "generation.programs.judge generation.programs.pair"
    modules = f"engine.actor engine.client run.writer_actor {programs} loop.stages.train_set train.worker"
    code = "; ".join(f"import ray_app.{name} as m" for name in modules.split()) + "; print(m.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"{tmp_path}/ray_app/train/worker.py")


def test_it_installs_the_locked_gpu_flavour(config: dict[str, Any]) -> None:
    assert any("[gpu]" in command and "gpu.lock" in command for command in config["setup_commands"])
    assert (PATH.parent / "requirements" / "gpu.lock").is_file()
