"""Parts that several settings trees are built from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class CommandSettings(BaseSettings):
    """Base of every command's settings tree; `ray_app.command.load_settings` reads it."""

    model_config = SettingsConfigDict(
        extra="forbid",
        env_prefix="STE_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )
    stands_alone: ClassVar[str] = ""  # what may stand before the options without a name, as `--help` shows it


class Part(BaseModel):
    """A section of the tree: unknown keys fail, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def at_defaults(part: BaseModel, names: Iterable[str]) -> set[str]:
    """Those of a section's settings that have their default values. Newer settings are left out of fingerprints by it,
    so that runs that were begun before they existed continue.
    """
    fields = type(part).model_fields
    return {name for name in names if getattr(part, name) == fields[name].default}


class SamplingSettings(Part):
    """Sampling of one kind of request (paper, section 4.1: T 0.7, top_p 0.9)."""

    temperature: float = Field(0.7, ge=0, description="0 is greedy")
    top_p: float = Field(0.9, gt=0, le=1, description="nucleus: the smallest set of tokens with so much probability")
    max_tokens: int = Field(4096, ge=1, description="at most so many new tokens an answer")


class PriceSettings(Part):
    """What judging costs, in any currency; without one, no price is shown."""

    gpu_hour: float | None = Field(None, ge=0, description="of one GPU for an hour, where engines run on GPUs")
    prompt_tokens: float | None = Field(None, ge=0, description="of a million prompt tokens of an endpoint")
    completion_tokens: float | None = Field(None, ge=0, description="of a million tokens that an endpoint makes")

    @model_validator(mode="after")
    def _one_kind(self) -> PriceSettings:
        if (self.prompt_tokens is None) != (self.completion_tokens is None):
            raise ValueError("prompt_tokens and completion_tokens are priced together: one of them is missing")
        if self.gpu_hour is not None and self.prompt_tokens is not None:
            raise ValueError("gpu_hour and the prices of tokens exclude each other: verdicts are paid for once")
        return self


def voted_sampling(given: SamplingSettings | None, votes: int) -> SamplingSettings:
    """How votes are sampled where nobody says it: one is greedy, several are drawn as judgments are."""
    if given is not None:
        return given
    return SamplingSettings(temperature=0, top_p=1) if votes == 1 else SamplingSettings()
