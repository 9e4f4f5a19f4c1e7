"""Curves really reach TensorBoard's files; a missing tracker names its setting."""

import importlib.util
import struct
import sys
import types

import pytest

from ray_app.errors import InputError
from ray_app.train.curves import TensorBoard, open_trackers
from ray_app.train.settings import TrackingSettings


def events(file):
    """Events of a TensorBoard file: records of length, checksum, protobuf, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_points_are_in_the_event_file(tmp_path):
    tracker = TensorBoard(str(tmp_path))
    tracker.log(3, {"loss": 1.25, "lr": 0.5})
    tracker.close()
    (file,) = tmp_path.glob("events.out.tfevents.*")
    points = {(e.step, v.tag): v.simple_value for e in events(file) for v in e.summary.value}
    assert points == {(3, "train/loss"): 1.25, (3, "train/lr"): 0.5}


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_tracker_that_is_not_installed_names_its_setting(tmp_path):
    with pytest.raises(InputError, match=r"train\.tracking\.to: wandb is not installed"):
        open_trackers(TrackingSettings(to=("wandb",)), name="r", folder=str(tmp_path), config={})


def test_wandb_and_mlflow_get_the_same_points(tmp_path, monkeypatch):
    """Against recorders with the two libraries' signatures: neither is a dependency, and both need an account."""
    wandb, mlflow = Recorder(), Recorder(search_runs=[])
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    settings = TrackingSettings(to=("wandb", "mlflow"), project="p")
    trackers = open_trackers(settings, name="run-1", folder=str(tmp_path), config={"lr": 1})[1:]
    for tracker in trackers:
        tracker.log(7, {"loss": 0.5})
        tracker.close()
    assert (
        "init",
        {"project": "p", "name": "run-1", "id": "run-1", "resume": "allow", "config": {"lr": 1}},
    ) in wandb.calls
    assert ("log", {"0": {"train/loss": 0.5}, "step": 7}) in wandb.calls
    assert ("log_metrics", {"0": {"train/loss": 0.5}, "step": 7}) in mlflow.calls
    assert mlflow.calls[-1] == ("end_run", {})


class Recorder(types.ModuleType):
    """Notes every call; returns itself, or what was given for a name."""

    def __init__(self, **returns):
        super().__init__("recorder")
        self.calls, self.returns = [], returns

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*values, **options):
            self.calls.append((name, {**{str(i): v for i, v in enumerate(values)}, **options}))
            return self.returns.get(name, self)

        return call
