"""What training workers that wait run inside Ray Train: an order actor, and a backend that waits for it.

Ray Train asks its backend (ray.train.backend, a developer API) to prepare the workers before their loop begins. Ours
waits there for the order, so that PyTorch's process group is made once the GPUs are the trainer's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch.config import TorchConfig, _TorchBackend

from ray_app.train.job import Job
from ray_app.train.settings import TrainSettings


@dataclass(frozen=True)
class Order:
    """What the workers are to do, and the GPUs of each node's workers, by local rank. Of an `early` one rows and steps
    are not known yet: the workers build its model meanwhile.
    """

    job: Job
    gpus: Mapping[str, tuple[str, ...]]
    early: bool = False


class Orders:
    """An actor that holds the order, once there is one; None tells those who wait that there will be none."""

    def __init__(self) -> None:
        self.given, self.complete = asyncio.Event(), asyncio.Event()
        self.order: Order | None = None
        self.controller: Any = None

    async def give(self, order: Order | None) -> None:
        self.order = order
        self.given.set()
        if order is None or not order.early:
            self.complete.set()

    async def taken(self, controller: Any = None) -> Order | None:
        """The order, as soon as it is there; Ray Train's controller tells who it is."""
        self.controller = controller or self.controller
        await self.given.wait()
        return self.order

    async def whole(self) -> Order | None:
        """The order with its rows, as soon as they are there."""
        await self.complete.wait()
        return self.order

    async def spoil(self) -> Order | None:
        """The model of an early order cannot be built. Returns the whole one, where it is there, so that the fault is
        told in its folder; else workers that start again wait for that, and meet the fault then.
        """
        if self.complete.is_set():
            return self.order
        self.given.clear()
        return None

    async def who_waits(self) -> Any:
        """The controller's handle; None where its workers have not started yet."""
        return self.controller


@dataclass
class WaitingConfig(TorchConfig):  # type: ignore[misc]  # Ray is untyped
    """PyTorch's backend, which waits first. `warm`: what every worker imports meanwhile (`warm.warm`)."""

    orders: Any = None
    warm: tuple[TrainSettings, str, str | None] | None = None

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return WaitingBackend


class WaitingBackend(_TorchBackend):  # type: ignore[misc]  # Ray is untyped
    """Runs in Ray Train's controller."""

    def on_start(self, worker_group: Any, backend_config: WaitingConfig) -> None:
        from ray_app.train.warm import warm

        worker_group.execute_async(warm, *(backend_config.warm or ()))
        controller = ray.get_runtime_context().current_actor
        if ray.get(backend_config.orders.taken.remote(controller)) is None:
            os._exit(0)  # nobody waits for it any more; its workers end with it
        super().on_start(worker_group, backend_config)
