"""Prompt files and gold sets are read once: what was hashed is what is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from loop_runs import DEMO

from ray_app.base.prompts import Prompt
from ray_app.errors import InputError
from ray_app.judging.best_of import BestOf
from ray_app.judging.judge import BestOfPrompts
from ray_app.loop.stages.inputs import FIRST_WORDING, Inputs
from ray_app.loop.steps import steps_of
from ray_app.run.folder import RunFolder

REWARDBENCH2 = Path(__file__).resolve().parents[3] / "fixtures" / "benchmarks" / "rewardbench2.jsonl"


SHOWN = "{{ instruction }} {{ response_a }} {{ response_b }}"


def prompt_file(path: Path, text: str) -> str:
    path.write_text(yaml.safe_dump({"name": "own", "user": f"{text} {SHOWN} [[A]] [[B]]"}))
    return str(path)


def test_a_prompt_that_is_edited_while_a_run_goes_on_changes_nothing_in_it(settings: Any, tmp_path: Path) -> None:
    made = settings(prompts={"judge": prompt_file(tmp_path / "judge.yaml", "First.")}, iterations=1)
    inputs = Inputs(made)
    planned = {str(s): s.fingerprint for s in steps_of(made, RunFolder(made.run_uri), inputs)}
    prompt_file(tmp_path / "judge.yaml", "Second.")
    judge = inputs.judge(made.judge, "j")
    used = made.protocol.sampling_program(judge, made.judging, 0, 1).prompt
    assert used.hash == planned["iteration 1: judgments"].settings["prompts.judge"]
    assert used.user.startswith("First.")
    # The same command again is another plan, and names what has changed.
    again = {str(s): s.fingerprint for s in steps_of(made, RunFolder(made.run_uri))}
    assert again["iteration 1: judgments"] != planned["iteration 1: judgments"]


def test_a_gold_set_is_loaded_once(settings: Any, tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text((DEMO / "validation.jsonl").read_text())
    inputs = Inputs(settings())
    first = inputs.gold_set(f"gold={gold}", 8)
    gold.write_text((DEMO / "test.jsonl").read_text())
    assert inputs.gold_set(f"gold={gold}", 8) is first


def test_a_gold_set_that_changed_after_its_hash_was_taken_is_named(settings: Any, tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text((DEMO / "validation.jsonl").read_text())
    inputs = Inputs(settings())
    inputs.content(f"gold={gold}")
    gold.write_text((DEMO / "test.jsonl").read_text())
    with pytest.raises(InputError, match=r"gold\.jsonl has changed since this command began"):
        inputs.gold_set(f"gold={gold}", None)


@pytest.mark.parametrize("mode", ["pairwise", "pointwise"])
def test_another_wording_of_the_best_of_prompts_is_another_evaluation(settings: Any, mode: str) -> None:
    """Of RewardBench 2 alone; the first wording stays out, so that sets judged before it counted still do."""
    made = settings(judging={"mode": mode}, evaluation={"test": [f"rewardbench2={REWARDBENCH2}"]})

    def prompts(letter: str | None = None) -> dict[str, dict[str, str]]:
        inputs = Inputs(made)
        if letter is not None:
            inputs.best_of = BestOfPrompts(Prompt("new", letter), inputs.best_of.rating)
        steps = steps_of(made, RunFolder(made.run_uri), inputs)
        names = {str(s).rsplit(" ", 1)[-1]: s.fingerprint.settings for s in steps if s.stage == "evaluation"}
        return {name: {k: v for k, v in s.items() if k.startswith("prompts.")} for name, s in names.items()}

    first, reworded = prompts(), prompts("Which of four?")
    assert Inputs(made).best_of.hashes() == FIRST_WORDING
    assert first["validation"] == reworded["validation"]
    assert list(first["rewardbench2"]) == ["prompts.judge"]
    assert list(reworded["rewardbench2"]) == ["prompts.judge", "prompts.judge_best_of"]


def test_best_of_votes_of_another_iteration_have_other_seeds(settings: Any) -> None:
    made = settings(evaluation={"votes": 3, "generation": {"temperature": 0.7}})
    inputs = Inputs(made)
    benchmark = inputs.gold_set(f"rewardbench2={REWARDBENCH2}", None)
    judge = inputs.judge(made.judge, "j")
    iterations = [
        [asked.program.iteration for asked in BestOf(True).questions(judge, benchmark, inputs.voting(i), "rb2")]  # type: ignore[attr-defined]
        for i in (1, 2)
    ]
    assert iterations == [[1, 1], [2, 2]]
