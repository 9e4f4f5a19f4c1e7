"""Curves really reach TensorBoard's files; a missing tracker names its setting."""

import importlib.util
import sys
import types

import pytest
from event_files import points

from ray_app.errors import InputError
from ray_app.train.check import TRACKERS, check
from ray_app.train.settings import TrackingSettings, TrainSettings
from ray_app.train.trackers import TensorBoard, open_trackers


def test_points_are_in_the_event_file(tmp_path):
    tracker = TensorBoard(str(tmp_path))
    tracker.log(3, {"loss": 1.25, "lr": 0.5})
    tracker.close()
    assert points(tmp_path) == {(3, "train/loss"): 1.25, (3, "train/lr"): 0.5}


@pytest.mark.parametrize("kind", ["wandb", "mlflow", "tensorboard"])
def test_a_tracker_that_is_not_installed_names_its_setting(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, TRACKERS[kind], None)  # an import of it fails
    with pytest.raises(InputError, match=rf"^train\.tracking\.to: {kind} is not installed[^\n]*$"):
        open_trackers(TrackingSettings(to=(kind,)), name="r", folder=str(tmp_path), config={})


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_it_is_named_before_any_worker_starts(monkeypatch, kind):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == TRACKERS[kind] else object())
    check(TrainSettings())
    with pytest.raises(InputError, match=rf"^train\.tracking\.to: {kind} is not installed \(pip install {kind}\)$"):
        check(TrainSettings(tracking={"to": ("tensorboard", kind)}))


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
