"""Standard output and error of a command, whose readers may leave before it ends (`evaluate … | head -1`)."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class _Unread(io.FileIO):
    """A stream that takes in silence what nobody reads any more."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


@contextlib.contextmanager
def outliving_readers() -> Iterator[None]:
    """Inside the block, a reader of stdout or stderr that leaves stops nothing, in the middle of a table neither.

    The command ends with the exit code of its work, 0 where that is done, and not with 141 as by SIGPIPE. Results are
    files, and what is printed only tells of them. With 141, `set -o pipefail` would call the same finished work a
    failure or a success by whether `head` left before the last line was written. Only these two streams are meant: a
    broken pipe anywhere else is a fault.
    """
    found = sys.stdout, sys.stderr
    ours = _outliving(sys.stdout, sys.__stdout__), _outliving(sys.stderr, sys.__stderr__)
    sys.stdout, sys.stderr = ours
    try:
        yield
    finally:
        for stream in ours:  # by now others may stand in their place (`stopping`)
            stream.flush()
        sys.stdout, sys.stderr = found


def _outliving(stream: TextIO, original: TextIO | None) -> TextIO:
    if stream is not original or not isinstance(stream, io.TextIOWrapper):
        return stream  # someone caught it (a test, a notebook), or there is none
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Unread(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,  # PYTHONUNBUFFERED
    )
