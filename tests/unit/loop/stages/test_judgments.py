"""The judgments stage: what the judge is asked before it judges a pair, and what its fingerprint covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ray_app.base.schema import PAIRS
from ray_app.engine.scripted import ScriptedEngine
from ray_app.errors import InputError
from ray_app.generation.runner import StageResult
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages import judgments
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.shards import ShardWriter, shard_files
from ray_app.run.storage import read_parquet

PAIR = {
    **dict.fromkeys(PAIRS.names),
    **{"pair_id": "p1", "instruction_id": "i1", "instruction": "Name a bird.", "modified_instruction": "Name a fish."},
    **{"chosen": "A wren.", "rejected": "A trout.", "generator": "g", "strategy": "modified_instruction"},
    **{"split": "train", "group": "i1"},
}


class Rows(list[dict[str, Any]]):
    """Rows in place of a Ray dataset."""

    def flat_map(self, made_of: Callable[[dict[str, Any]], list[dict[str, Any]]], **_: Any) -> list[dict[str, Any]]:
        return [made for row in self for made in made_of(row)]


@pytest.fixture
def judged(
    context: Callable[..., Context], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[StageResult, list[dict[str, Any]]]]:
    """The stage's numbers and rows for one pair, by a scripted judge."""

    def run(says_yes: float, pair: dict[str, Any] = PAIR, **judging: Any) -> tuple[StageResult, list[dict[str, Any]]]:
        made = context(name=f"{pair['pair_id']}-{says_yes}", judging=judging, judge={"script": {"says_yes": says_yes}})
        with ShardWriter(made.pairs_dir(1), PAIRS) as writer:
            writer.add([pair])
        monkeypatch.setattr(Context, "dataset", lambda _, directory: Rows([pair]))
        monkeypatch.setattr(Context, "since_checkpoint", lambda *_: {})
        result = judgments.run(made, 1, made.inputs.judge(made.settings.judge, "seed"))
        files = shard_files(made.folder.stage_dir("judgments", 1))
        return result, [row for file in files for row in read_parquet(file).to_pylist()]

    return run


def test_the_judge_is_asked_about_a_pair_before_it_judges_it(judged: Callable[..., Any]) -> None:
    result, rows = judged(1.0, ask_pairs=True)
    assert (result.quarantined, rows) == ({"answers_original": 2}, []), "neither order is judged"
    assert judged(0.0, ask_pairs=True)[0].quarantined == {"misses_own": 2}
    alone = {**PAIR, "pair_id": "p2", "modified_instruction": ""}
    result, rows = judged(0.0, alone, ask_pairs=True, samples=1)
    assert not result.quarantined, "without a second instruction there is one question, and its answer is no"
    assert {(row["pair_id"], row["order"]) for row in rows} == {("p2", "chosen_first"), ("p2", "rejected_first")}


def test_it_is_not_asked_without_the_setting(judged: Callable[..., Any]) -> None:
    result, rows = judged(1.0, samples=1)
    assert not result.quarantined
    assert len(rows) == 2


def says(*texts: str) -> Callable[[ScriptedEngine, str, int | None], str]:
    """Answers about `PAIR`, draw by draw of a prompt; `{gold}` is the letter of the better response, `{other}` of the
    worse one.
    """
    drawn: Counter[str] = Counter()

    def answer(_: ScriptedEngine, prompt: str, seed: int | None) -> str:
        gold, other = "AB" if prompt.index("A wren.") < prompt.index("A trout.") else "BA"
        text = texts[drawn[prompt]]
        drawn[prompt] += 1
        return text.format(gold=gold, other=other)

    return answer


@pytest.mark.parametrize(
    ("setting", "first", "second"),
    [
        ({"min_explanation": 4}, "Good bird. [[{gold}]]", "It names a bird. [[{gold}]]"),
        ({"must_name": True}, "It is the more relevant one. [[{gold}]]", "The wren is a bird. [[{gold}]]"),
        ({"must_agree": True}, "Response {other} is better. [[{gold}]]", "Response {gold} is better. [[{gold}]]"),
    ],
)
@pytest.mark.parametrize("sampling", ["until_correct", "all"])
def test_what_a_kept_judgment_must_say_is_a_setting(
    judged: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    sampling: str,
    setting: dict[str, Any],
    first: str,
    second: str,
) -> None:
    """Both draws are right: which of them is kept follows from the setting alone."""

    def kept(pair_id: str, **judging: Any) -> set[tuple[str, int]]:
        monkeypatch.setattr(ScriptedEngine, "_answer", says(first, second))
        _, rows = judged(0.0, {**PAIR, "pair_id": pair_id}, sampling=sampling, samples=2, **judging)
        assert all(row["correct"] for row in rows)
        return {(row["order"], row["sample"]) for row in rows if row["kept"]}

    assert kept("asked", **setting) == {("chosen_first", 1), ("rejected_first", 1)}
    assert kept("unasked") == {("chosen_first", 0), ("rejected_first", 0)}


def test_what_is_asked_is_covered_where_it_is_asked(settings: Callable[..., IterateSettings]) -> None:
    def covered(**judging: Any) -> dict[str, Any]:
        made = settings(judging=judging, pairs={"ask_sampling": {"max_tokens": 7}})
        return judgments.settings_of(made, Inputs(made), {})

    before, asking = covered(), covered(ask_pairs=True)
    assert set(before["prompts"]) == {"judge"}
    assert not {"ask_pairs", "ask_sampling"} & before["judging"].keys()
    assert set(asking["prompts"]) == {"judge", "check_response"}
    assert (asking["judging"]["ask_pairs"], asking["judging"]["ask_sampling"]["max_tokens"]) == (True, 7)


def test_a_prompt_that_does_not_show_a_response_is_no_question(settings: Callable[..., IterateSettings]) -> None:
    made = settings(judging={"ask_pairs": True}, prompts={"check_response": "modify_instruction"})
    with pytest.raises(InputError, match="response"):
        judgments.settings_of(made, Inputs(made), {})
