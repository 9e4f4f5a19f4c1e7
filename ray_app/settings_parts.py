"""Parts that several settings trees are built from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A section of the tree: unknown keys fail, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingSettings(Part):
    """Sampling of one kind of request (paper, section 4.1: T 0.7, top_p 0.9)."""

    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    max_tokens: int = Field(4096, ge=1)
