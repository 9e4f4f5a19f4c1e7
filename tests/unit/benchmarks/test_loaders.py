"""Each loader on the fixture of its schema: labels, subsets, ids, clusters, ties and faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ray_app.base.schema import PairwiseRow, content_id, pair_key
from ray_app.base.verdict import Count
from ray_app.benchmarks import BENCHMARKS, Benchmark, load_benchmark
from ray_app.benchmarks.rewardbench2 import shown_order
from ray_app.errors import InputError
from ray_app.metrics import outcomes_of, summarise

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"


def load(name: str, file: str = "", limit: int | None = None) -> Benchmark:
    return load_benchmark(f"{name}={FIXTURES / (file or name + '.jsonl')}", limit)


def winner(row: PairwiseRow) -> object:
    return row.response_a if row.label == "A" else row.response_b


def faults(benchmark: Benchmark) -> dict[str, str]:
    return {q["id"]: q["reason"] for q in benchmark.quarantined}


def test_rewardbench() -> None:
    benchmark = load("rewardbench")
    assert [row.id for row in benchmark.rows] == ["0", "11", "12", "13", "14"]
    assert [winner(row) for row in benchmark.rows][:2] == ["The Loire.", "tac"]
    assert [row.subset for row in benchmark.rows][-2:] == ["math-prm", "hep-python"]
    assert len(faults(benchmark)) == 1
    assert faults(benchmark)["15"].startswith("empty_response_")
    assert (benchmark.n_in, benchmark.n, benchmark.spec) == (6, 6, "rewardbench")


HEP = {
    "python": "Write a Python function `next_odd(number: int) -> int` to solve the following problem:\nThe next odd.",
    "cpp": "Write a C++ function `vector<int> next_odd(int number)` to solve the following problem:\nThe one after it.",
    "go": "Write a Go function `func NextOdd(number int) int` to solve the following problem:\nNext (odd) number.",
    "java": "Write a Java function `public Optional<Integer> nextOdd(List<Integer> l)` to solve the following problem:",
    "js": "Write a JavaScript function `const nextOdd = (number)` to solve the following problem:\nNext.",
    "rust": "Write a Rust function `next_odd_17<'a>(number: &'a i32) -> &'a i32` to solve the following problem:",
}


def test_rows_of_one_problem_in_six_languages_are_one_cluster(tmp_path: Path) -> None:
    """Six answers to one problem are not six independent ones; other problems, and other subsets, are clusters of their
    own.
    """
    prompts = [(f"hep-{language}", prompt) for language, prompt in HEP.items()]
    prompts += [(subset, prompt.replace("ext", "ast")) for subset, prompt in prompts]
    prompts += [("math-prm", HEP["go"]), ("hep-go", "Write a Go function that adds one.")]
    lines = [
        json.dumps({"id": place, "subset": subset, "prompt": prompt, "chosen": "c", "rejected": "r"})
        for place, (subset, prompt) in enumerate(prompts)
    ]
    (tmp_path / "hep.jsonl").write_text("\n".join(lines))
    groups = [row.group for row in load_benchmark(f"rewardbench={tmp_path / 'hep.jsonl'}").rows]
    assert [groups.index(group) for group in groups] == [0] * 6 + [6] * 6 + [12, 13]
    assert groups[12:] == [content_id(prompt) for _, prompt in prompts[12:]]


def test_sides_are_a_hash_bit_of_the_id_and_about_balanced(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": i, "subset": "math-prm", "prompt": "p", "chosen": "c", "rejected": "r"}) for i in range(400)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.jsonl").write_text("\n".join(reversed(lines)))
    one, two = (
        {r.id: r.label for r in load_benchmark(f"rewardbench={tmp_path / f}").rows} for f in ("a.jsonl", "b.jsonl")
    )
    assert one == two
    assert 160 < sum(label == "A" for label in one.values()) < 240


def test_helpsteer2() -> None:
    benchmark = load("helpsteer2")
    assert [winner(row) for row in benchmark.rows] == ["7 is prime.", "Santiago."]
    assert benchmark.dropped == {"tie": 1}
    assert sorted(faults(benchmark).values()) == ["no_label", "unpaired"]
    assert benchmark.rows[1].instruction == [
        {"role": "user", "content": "What is the capital of Peru?"},
        {"role": "assistant", "content": "Lima."},
        {"role": "user", "content": "And of Chile?"},
    ]
    assert [row.label for row in benchmark.rows] == ["A", "B"]


def test_mtbench_human() -> None:
    benchmark = load("mtbench_human")
    assert [(row.subset, row.label) for row in benchmark.rows] == [
        ("turn_1", "A"),
        ("turn_1", "A"),
        ("turn_1", "B"),
        ("turn_2", "A"),
    ]
    assert benchmark.dropped == {"tie": 2}
    assert list(faults(benchmark).values()) == ["bad_conversation"]
    first, second = benchmark.rows[0], benchmark.rows[3]
    assert (first.instruction, first.response_a) == ("Name a tree.", "An oak.")
    assert second.instruction == [
        {"role": "user", "content": "Name a tree."},
        {"role": "user", "content": "Name another one."},
    ]
    assert second.response_b == [
        {"role": "assistant", "content": "A rock."},
        {"role": "user", "content": "Name another one."},
        {"role": "assistant", "content": "A rock again."},
    ]
    assert first.group == second.group == content_id("Name a tree.")
    assert first.id == "81:1:model-x:model-y:expert_0"


def test_a_human_who_votes_twice_gets_two_ids(tmp_path: Path) -> None:
    line = (FIXTURES / "mtbench_human.jsonl").read_text().splitlines()[0]
    (tmp_path / "twice.jsonl").write_text(f"{line}\n{line}\n")
    ids = [row.id for row in load_benchmark(f"mtbench_human={tmp_path / 'twice.jsonl'}").rows]
    assert ids == ["81:1:model-x:model-y:expert_0", "81:1:model-x:model-y:expert_0#2"]


def test_judgebench() -> None:
    benchmark = load("judgebench")
    assert [(row.subset, row.label) for row in benchmark.rows] == [
        ("knowledge", "A"),
        ("knowledge", "B"),
        ("reasoning", "A"),
        ("math", "A"),
        ("coding", "B"),
    ]
    assert faults(benchmark) == {"0000-6": "bad_label"}


def test_judgebenchs_two_sets_are_not_pooled(tmp_path: Path) -> None:
    row = {"source": "mmlu-pro-law", "question": "Q?", "response_A": "a", "response_B": "b", "label": "A>B"}
    models = ("gpt-4o-2024-05-13", "claude-3-5-sonnet-20240620")
    rows = [{**row, "pair_id": str(i), "response_model": model} for i, model in enumerate(models)]
    file = tmp_path / "both.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    with pytest.raises(InputError, match=r"both.jsonl.* claude-3-5-.* and gpt-4o-.* in one file"):
        load_benchmark(f"judgebench={file}")
    file.write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    assert len(load_benchmark(f"judgebench={file}").rows) == 1


def test_llmbar_from_its_folder() -> None:
    benchmark = load("llmbar", "llmbar")
    assert sorted((row.subset, str(winner(row))) for row in benchmark.rows) == [
        ("GPTInst", "chien"),
        ("Natural", "1 2 3"),
        ("Natural", "Apple, pear."),
        ("Neighbor", "An old silent pond"),
    ]
    assert list(faults(benchmark).values()) == ["bad_label"]
    assert len({row.id for row in benchmark.rows}) == 4


def test_rewardbench2() -> None:
    benchmark = load("rewardbench2")
    assert benchmark.kind == "best_of"
    assert [(row.id, row.num_correct, len(row.responses)) for row in benchmark.best_of] == [
        ("0", 1, 4),
        ("1", 1, 4),
        ("2", 1, 4),
        ("4", 1, 4),
        ("ref:0", 1, 3),
        ("tied:0", 3, 5),
        ("ref:1", 1, 2),
        ("tied:1", 2, 3),
    ]
    assert faults(benchmark) == {"3": "empty_response"}
    ties = {row.id: row.group for row in benchmark.best_of if row.subset == "Ties"}
    assert ties["ref:0"] == ties["tied:0"] != ties["ref:1"] == ties["tied:1"]
    assert "Say ok." in list(benchmark.instructions())


def test_best_of_four_shows_the_correct_one_anywhere_seeded_by_id() -> None:
    row = load("rewardbench2").best_of[0]
    orders = [shown_order(row, seed) for seed in range(40)]
    assert orders == [shown_order(row, seed) for seed in range(40)]
    assert {order.index(0) for order in orders} == {0, 1, 2, 3}
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)


@pytest.mark.parametrize("name", sorted(name for name, spec in BENCHMARKS.items() if not spec.rated))
def test_every_loader_takes_the_common_form(name: str) -> None:
    benchmark = load(name, "pairwise.jsonl")
    assert [row.id for row in benchmark.rows] == ["p1", "p2", "p3", "p4", "p5"]
    assert [row.label for row in benchmark.rows] == list("ABABB")
    assert benchmark.spec == name
    assert benchmark.rows[0].group == benchmark.rows[1].group == content_id("Name a city.")


def test_common_form_keeps_a_benchmarks_own_subset_names(tmp_path: Path) -> None:
    def subset(name: str, given: str) -> str:
        row = {
            "id": "1",
            "subset": given,
            "instruction": "q",
            "response_a": "x",
            "response_b": "y",
            "label": "A",
        }
        (tmp_path / "one.jsonl").write_text(json.dumps(row))
        return load_benchmark(f"{name}={tmp_path / 'one.jsonl'}").rows[0].subset

    assert subset("rewardbench", "math-prm") == "math-prm"
    assert subset("judgebench", "mmlu-pro-law") == subset("judgebench", "knowledge") == "knowledge"
    assert subset("llmbar", "adversarial/GPTOut") == subset("llmbar", "llmbar-adver-GPTOut") == "GPTOut"
    assert subset("mtbench_human", "turn 2") == "turn_2"
    assert subset("rewardbench2", "precise if") == "Precise IF"


def test_mtbench_votes_on_two_models_either_way_round_are_votes_on_one_pair(tmp_path: Path) -> None:
    vote = json.loads((FIXTURES / "mtbench_human.jsonl").read_text().splitlines()[0])
    other = {**vote, "model_a": vote["model_b"], "model_b": vote["model_a"], "judge": "expert_9", "winner": "model_b"}
    other |= {"conversation_a": vote["conversation_b"], "conversation_b": vote["conversation_a"]}
    (tmp_path / "votes.jsonl").write_text(f"{json.dumps(vote)}\n{json.dumps(other)}\n")
    benchmark = load_benchmark(f"mtbench_human={tmp_path / 'votes.jsonl'}")
    one, two = benchmark.rows
    assert (one.label, two.label) == ("A", "B"), "both humans prefer the same model"
    assert winner(one) == winner(two)
    assert pair_key(one)[0] == pair_key(two)[0]
    tallies = {
        row.id: {"ab": Count(int(first == "A"), int(first == "B")), "ba": Count(int(first == "B"), int(first == "A"))}
        for row, first in ((one, "A"), (two, "B"))
    }
    summary = summarise(benchmark, outcomes_of(benchmark, tallies), seed=0, resamples=20)
    assert summary["human_agreement"]["pairs"] == 1
    assert summary["mtbench"]["human_human"] == {"value": 1, "n": 1, "low": None, "high": None}
