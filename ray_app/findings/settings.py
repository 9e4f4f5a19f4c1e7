"""Thresholds of the alarms. A figure on few rows raises none."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ray_app.base.settings_parts import Part


class AlarmSettings(Part):
    """When a run is said to go wrong (docs/report.md), and what happens then."""

    on_alarm: Literal["warn", "stop"] = Field(
        "warn", description="stop: the run ends after the pairs or the iteration that raises one"
    )
    min_rows: int = Field(20, ge=1, description="a figure on fewer rows raises no alarm")
    sensitivity: float = Field(
        0.6, ge=0, le=1, description="shortcut: winners that change with the instruction, at least"
    )
    longer: float = Field(0.65, ge=0.5, le=1, description="shortcut: what always the longer response may score")
    words: float = Field(
        0.8, ge=0.5, le=1, description="shortcut: what always more of the instruction's words may score, held-out pairs"
    )
    meta_talk: float = Field(
        0.1, ge=0, le=1, description="rejected responses that talk about being an assistant, at most"
    )
    refusals: float = Field(0.1, ge=0, le=1, description="rejected responses that decline, at most")
    near_copies: float = Field(0.05, ge=0, le=1, description="pairs whose responses are nearly the same, at most")
    keep_rate: float = Field(0.3, ge=0, le=1, description="(pair, order) with a correct judgment, at least")
    keep_rate_fall: float = Field(0.1, ge=0, le=1, description="fall of the keep rate from one iteration to the next")
    first_position: float = Field(
        0.15, ge=0, le=0.5, description="position bias: distance of the first-position rate from ½"
    )
    unparsed: float = Field(0.1, ge=0, le=1, description="judgments or verdicts without a verdict, at most")
    bare_verdicts: float = Field(
        0.5, ge=0, le=1, description="collapse: trained judgments that say nothing else, at most"
    )
    distinct: float = Field(
        0.3, ge=0, le=1, description="collapse: explanations that are not the same as another, at least"
    )
    synthetic_from: float = Field(
        0.6, ge=0.5, le=1, description="synthetic only: is looked for where this many held-out pairs are right for sure"
    )
    synthetic_only: float = Field(
        0.1,
        ge=0,
        le=1,
        description="synthetic only: what the other sets together have of their lead over chance, more than",
    )
    validation_falls: float = Field(
        0.0, ge=0, le=1, description="fall of validation that is told, where held-out pairs rise, if it is more than"
    )
    overlap: float = Field(0.01, ge=0, le=1, description="instructions that share text with a benchmark, at most")
