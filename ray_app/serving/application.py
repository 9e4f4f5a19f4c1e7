"""The application that `judge --serve` has on Ray Serve: whose it is, and its end."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray import serve

from ray_app.errors import RunError
from ray_app.system.stopping import at_most

NAME = "judge"
END_S = 4.0  # for the requests that are being answered when the service is stopped
ASK_S, ASK_AT_END_S = 15.0, 1.0  # for an answer of an application that is there
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """A command that serves. The application names it, so that another command can tell whose it is."""

    serve_was_there: bool  # and is to stay at its end
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Application:
    """What this command puts on Ray Serve. On a cluster, Serve and the applications of others may be there before."""

    def __init__(self) -> None:
        found = serve.status()
        self.owner = Owner(serve_was_there=bool(found.proxies or found.applications))
        self.others = set(found.applications)
        self.ended = True  # nothing is there to be ended yet

    def claim(self) -> None:
        """Raises RunError where another command serves a judge on this cluster: deploying would take its place. One
        that was killed has left its application, whose engines are gone for good: that one is replaced.
        """
        if NAME in self.others:
            left_by = _ask("owner", ASK_S) if _ask("abandoned", ASK_S) is True else None
            if left_by is None:
                raise RunError(f"the service did not start: the application {NAME!r} is served on this cluster already")
            log.warning("the application %r of a command that is gone has no engine any more: it is replaced", NAME)
            self.owner = replace(self.owner, serve_was_there=left_by.serve_was_there)
        self.ended = False

    def end(self, wait: bool = False) -> None:
        """Delete the application, and end Serve where it was started here and serves nobody else.

        Serve's controller does both and outlives this process, so without `wait` it is enough to have asked for it.
        With `wait`, requests that are being answered get some seconds to end.
        """
        if self.ended or not ray.is_initialized():
            return
        self.ended = True
        applications = set(serve.status().applications)
        if NAME in applications and self._is_another_commands():
            return
        serve.delete(NAME, _blocking=False)
        until = time.monotonic() + (at_most(END_S) if wait else 0)
        while time.monotonic() < until and NAME in serve.status().applications:
            time.sleep(0.1)
        if not self.owner.serve_was_there and applications <= {NAME}:
            serve.shutdown()

    def _is_another_commands(self) -> bool:
        """Whether another one has taken its place, because the engines here were gone."""
        found = _ask("owner", at_most(ASK_AT_END_S))
        return found is not None and found.id != self.owner.id


def _ask(method: str, limit_s: float) -> Any:
    """What the application that is there answers; None where it answers nothing."""
    try:
        return getattr(serve.get_app_handle(NAME), method).remote().result(timeout_s=limit_s)
    except Exception as fault:  # of Ray, of Serve, of a deployment by another version: none of them is an answer
        log.debug("the application %r does not answer: %r", NAME, fault)
        return None
