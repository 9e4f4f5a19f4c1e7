"""The registry of pair strategies and the setting that names them are the same list."""

from __future__ import annotations

from typing import get_args

from ray_app.base.schema import GIVEN_STRATEGY
from ray_app.generation.programs.pair import WAYS
from ray_app.loop.data_settings import PairSettings
from ray_app.loop.pair_strategies import STRATEGIES


def test_every_strategy_is_known_by_its_name() -> None:
    named = get_args(PairSettings.model_fields["strategy"].annotation)
    assert sorted(named) == sorted([*STRATEGIES, GIVEN_STRATEGY])
    assert {strategy for strategy, _ in WAYS} <= STRATEGIES.keys()
    own = [name for strategy in STRATEGIES.values() for name in strategy.own]
    assert len(own) == len(set(own)), "a setting is one strategy's or everybody's"
    assert set(own) <= PairSettings.model_fields.keys()


def test_prompts_are_those_that_are_shown() -> None:
    def shown(strategy: str, **more: str) -> tuple[str, ...]:
        part = PairSettings.model_validate({"strategy": strategy, **more})
        return STRATEGIES[strategy].prompts(part)

    assert shown("modified_instruction") == ("modify_instruction",)
    assert shown("modified_instruction", format="one_call") == ("modify_and_respond",)
    assert shown("worse_response", format="one_call") == ("worse_response",)
    assert shown("neighbour_instruction") == shown("checked_answer") == ()
