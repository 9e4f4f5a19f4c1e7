"""Settings of the connection to Ray (`ray.…`)."""

from __future__ import annotations

from pydantic import Field

from ray_app.base.settings_parts import Part


class RaySettings(Part):
    """How to reach Ray. With no address and no RAY_ADDRESS, a local one is started and stopped."""

    address: str | None = Field(
        None, description="of a running cluster (host:port, auto, ray://…); null: RAY_ADDRESS, else a local Ray"
    )
    num_cpus: int | None = Field(None, description="of the local Ray; default: all cores, at least 4")
    object_store_gib: float = Field(0.5, gt=0, description="of the local Ray")
    dashboard: bool = Field(True, description="start the dashboard of the local Ray")
    may_grow: bool | None = Field(
        None, description="whether nodes may still come; null: on a cluster that a launcher (ray up, KubeRay) made"
    )
    worker_logs: bool = Field(False, description="print what engines and trainers print; it is always in Ray's logs")
    working_dir: str | None = Field(None, description="uploaded to the nodes of a running cluster")
