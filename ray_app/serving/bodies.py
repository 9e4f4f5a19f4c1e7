"""Room for the bodies of requests: what is read and judged at once, so that no client fills memory or takes all places.

A client may send as slowly as it likes, so a body has a deadline, and it is admitted before it is read. Where places or
bytes run short, the body that has been coming for longest makes room, if it is slow: a slow request costs itself alone.
Of one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from ray_app.serving.http_request import HttpFault
from ray_app.serving.settings import HttpSettings

SLOW_S = 10.0  # a body that has been coming for so long makes room for others; one of a usual request takes far less


@dataclass(eq=False)
class Body:
    """One body: held from its first byte until its request is answered."""

    began: float  # by the clock of the event loop
    size: int = 0  # bytes held
    limit: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))


class Bodies:
    """At most `max_in_flight` bodies that are coming, and `max_held_mib` of those that are coming or judged."""

    def __init__(self, limits: HttpSettings) -> None:
        self.limits = limits
        self.held = 0  # bytes
        self.coming: dict[Body, None] = {}  # from the oldest on

    @contextlib.contextmanager
    def held_until_answered(self) -> Iterator[Body]:
        """Around a request: what is read of its body counts until the end of the block."""
        body = Body(asyncio.get_running_loop().time())
        try:
            yield body
        finally:
            self.held -= body.size

    async def read(self, body: Body, stream: AsyncIterator[bytes], until: float) -> bytes:
        """The bytes of `stream`; of a larger body only so much that it is seen to be over `max_body_mib`. `until`: by
        the clock of the event loop.

        Raises HttpFault: 503 where there is no room, 408 for a body that is too late, or makes room for others.
        """
        most, data = self.limits.max_body_bytes + 1, bytearray()
        self._require_place()
        self.coming[body] = None
        body.limit = asyncio.timeout_at(until)
        try:
            async with body.limit:
                async for chunk in stream:
                    part = chunk[: most - len(data)]
                    self._hold(body, len(part))
                    data += part
                    if len(data) == most:
                        break
        except TimeoutError:
            seconds = asyncio.get_running_loop().time() - body.began
            raise HttpFault(408, f"the body was not there after {seconds:.1f} s") from None
        finally:
            self.coming.pop(body, None)
        return bytes(data)

    def _require_place(self) -> None:
        most = self.limits.max_in_flight
        if len(self.coming) >= most and not self._drop_slowest():
            raise HttpFault(503, f"{len(self.coming)} bodies are being read; at most {most} are")

    def _hold(self, body: Body, more: int) -> None:
        while self.held + more > self.limits.max_held_bytes:
            if not self._drop_slowest(but=body):
                most = self.limits.max_held_bytes
                raise HttpFault(503, f"{self.held} bytes of bodies are held, and no more than {most} may be")
        body.size += more
        self.held += more

    def _drop_slowest(self, but: Body | None = None) -> bool:
        """Whether a slow body has made room."""
        now = asyncio.get_running_loop().time()
        oldest = next((body for body in self.coming if body is not but), None)
        if oldest is None or now - oldest.began < SLOW_S:
            return False
        self.coming.pop(oldest)
        self.held -= oldest.size
        oldest.size = 0
        with contextlib.suppress(RuntimeError):  # its own time is over in this moment
            oldest.limit.reschedule(now)  # its own task ends with TimeoutError
        return True
