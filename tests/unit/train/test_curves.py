"""Curves really reach TensorBoard's files; a missing tracker names its setting."""

import importlib.util
import struct

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
