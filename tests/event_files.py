"""What TensorBoard's event files hold, read without TensorBoard."""

from __future__ import annotations

import struct
from pathlib import Path


def points(folder: Path) -> dict[tuple[int, str], float]:
    """{(step, tag): value} of all event files of a folder; a record is length, checksum, protobuf, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[tuple[int, str], float] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
            data = data[16 + length :]
    return found
