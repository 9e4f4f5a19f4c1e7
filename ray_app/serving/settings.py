"""Settings of the HTTP service (`http.…`)."""

from __future__ import annotations

from pydantic import Field

from ray_app.base.settings_parts import Part


class HttpSettings(Part):
    """`judge --serve`: where it listens, and what it refuses."""

    host: str = Field("127.0.0.1", description="0.0.0.0 lets other machines in: there is no authentication")
    port: int = Field(8000, ge=1, le=65535, description="to listen on")
    max_body_mib: float = Field(8, gt=0, description="of one request")
    max_held_mib: float = Field(512, gt=0, description="of all bodies being read or judged; more are answered 503")
    max_pairs: int = Field(256, ge=1, description="of one request")
    timeout_s: float = Field(
        600, gt=0, description="of one request: a body that is not there then is answered 408, a pair not judged 504"
    )
    max_in_flight: int = Field(
        1024, ge=1, description="pairs being judged, and bodies being read; more are answered 503"
    )

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mib * 2**20)

    @property
    def max_held_bytes(self) -> int:
        return int(max(self.max_held_mib, self.max_body_mib) * 2**20)
