"""Settings of a second training in every iteration (`then_dpo.…`): DPO from, and against, the SFT checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from ray_app.base.settings_parts import Part
from ray_app.judging.settings import JudgingSettings
from ray_app.train.settings import TrainSettings

# Of `train.…`: what says on what data, for how long and how fast is the second training's own; all else is inherited.
OWN = {"recipe", "start", "lr", "lr_min", "warmup_steps", "sequence_length", "accumulation", "batch_rows", "epochs"} | {
    "max_steps",
    "dpo",
}
RELEASE: dict[str, Any] = {  # as the authors' release trains it; six preferences a prompt are its example
    "recipe": "dpo",
    "warmup_steps": 0,
    "dpo": {"pairs_per_prompt": 6, "unparsed_as_wrong": True, "nll_mean": "pairs"},
}


class ThenDpoSettings(Part):
    """DPO after SFT in every iteration, from and against the SFT checkpoint, on judgments of its own. What is not set
    here is as `judging` and `train` say, but for `sampling: all` and DPO's own rate, lengths and batch.
    """

    judging: JudgingSettings = Field(
        JudgingSettings(sampling="all"), description="how the SFT checkpoint judges the training pairs anew"
    )
    train: TrainSettings = Field(
        TrainSettings(**RELEASE), description="the second training; its defaults are the release's"
    )


def inherited(given: Mapping[str, Any], judging: Any, train: Any) -> dict[str, Any]:
    """`then_dpo` as given, over what it inherits of `judging` and `train`, as these were given."""
    own_judging, own_train = _given(given.get("judging")), _given(given.get("train"))
    shared = {name: value for name, value in _given(train).items() if name not in OWN}
    if "dtype" in own_train or "bf16" in own_train:  # one of them is the older name of the other
        shared = {name: value for name, value in shared.items() if name not in ("dtype", "bf16")}
    dpo = {**RELEASE["dpo"], **_given(own_train.get("dpo"))}
    return {
        **given,
        "judging": {**_given(judging), "sampling": "all", **own_judging},
        "train": {**shared, **RELEASE, **own_train, "dpo": dpo},
    }


def _given(part: Any) -> dict[str, Any]:
    """What was set of a section, however it came."""
    if isinstance(part, BaseModel):
        return part.model_dump(exclude_unset=True)
    return dict(part) if isinstance(part, Mapping) else {}
