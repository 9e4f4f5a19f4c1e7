"""Exports, resume after kill -9, selection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray
import torch
from event_files import points
from safetensors.torch import load_file
from train_runs import SEED, Killer, run, small

from ray_app.system import precision
from ray_app.train.job import Job
from ray_app.train.selection import Score
from ray_app.train.standby import Standby, seats
from ray_app.train.trainer import Validation


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = (folder / "checkpoint").glob("*.safetensors")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def test_the_checkpoint_is_a_complete_model(sft_run, shallow):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, result = sft_run
    checkpoint = folder / "checkpoint"
    lm, info = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    seed = AutoModelForCausalLM.from_pretrained(shallow, dtype=torch.bfloat16)
    moved = [float((a - b).detach().abs().max()) for a, b in zip(lm.parameters(), seed.parameters(), strict=True)]
    assert max(moved) > 1e-4
    chat = [{"role": "user", "content": "x"}]
    assert AutoTokenizer.from_pretrained(checkpoint).apply_chat_template(chat) == AutoTokenizer.from_pretrained(
        shallow
    ).apply_chat_template(chat)
    assert (checkpoint / "generation_config.json").is_file()
    assert len(list(checkpoint.glob("model-*-of-*.safetensors"))) > 2  # gathered and written in several parts
    assert result.losses[-1] < result.losses[0]


def test_only_what_is_needed_is_kept(sft_run):
    folder, result = sft_run
    (work,) = (folder / "state").iterdir()
    assert not (work / "ray").exists()
    assert not list((work / "candidates").iterdir())  # the last is the selected one, and moved
    assert list((work / "curves").glob("events*"))
    assert [candidate.step for candidate in result.candidates] == [4]


def test_the_curves_are_in_tensorboards_files(sft_run):
    folder, result = sft_run
    (work,) = (folder / "state").iterdir()
    found = points(work / "curves")
    for point in result.metrics:
        for name in ("loss", "grad_norm", "lr", "epoch", "tokens_per_second"):
            assert found[point["step"], f"train/{name}"] == pytest.approx(point[name], rel=1e-6)
    assert {step for step, _ in found} == {1, 2, 3, 4}


def test_a_committed_fit_returns_at_once(sft_run, sft_file, shallow):
    folder, result = sft_run
    assert run(small(checkpoint_every=2, export_shard_gib=0.01), folder, sft_file, shallow) == result


@pytest.mark.matrix
@pytest.mark.parametrize("waited", ["", "for rows", "with a model"])
def test_kill_9_of_a_worker_resumes_to_the_undisturbed_weights(
    sft_run, sft_file, shallow, tmp_path, monkeypatch: pytest.MonkeyPatch, waited: str
):
    """Workers that were there before their rows were (`waited`), and had built their model, train the same."""
    undisturbed, result = sft_run
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "stand_ins")
    killer = Killer(tmp_path / "state", 3)
    killer.start()
    waiting = {"to": ("tensorboard", "wandb"), "project": str(killer.state_dir)}
    settings = small(checkpoint_every=2, tracking=waiting).decided(precision.decided({"cpu"}))
    nodes = seats(ray.nodes(), settings)
    standby = Standby.start(settings, shallow, None, str(killer.state_dir), nodes) if waited else None
    if standby and waited == "with a model":
        standby.build(Job(settings, shallow, "", SEED, (), "", 0, 0))
    resumed = run(settings, tmp_path, sft_file, shallow, standby=standby)
    if standby:
        assert standby.ended.done()
        assert standby.adopted
        assert (standby.early is not None) == (waited == "with a model")
    assert killer.killed
    assert len(list(tmp_path.glob("state/*/curves/events*"))) == 2  # the worker that wrote curves was started twice
    assert [point["step"] for point in resumed.metrics] == [1, 2, 3, 4]
    torch.testing.assert_close(torch.tensor(resumed.losses), torch.tensor(result.losses), rtol=1e-4, atol=1e-5)
    expected = weights(undisturbed)
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_judging_between_segments_stops_early_and_keeps_the_best(cluster, sft_file, shallow, tmp_path):
    judged = []

    def judge(candidate):
        assert (Path(candidate.path) / "model.safetensors").is_file()
        judged.append(candidate.step)
        return Score(candidate.step, accuracy=0.9 - 0.1 * len(judged), first_position_rate=0.5, n=10)

    settings = small(checkpoint_every=1, max_steps=3, selection={"when": "between", "patience": 1})
    result = run(settings, tmp_path, sft_file, shallow, validation=Validation(judge))
    assert judged == [1, 2]
    assert (result.selected, result.steps) == (1, 2)
    record = json.loads((tmp_path / "checkpoint" / "candidate.json").read_text())
    assert record["step"] == 1
    (work,) = (tmp_path / "state").iterdir()
    assert [path.name for path in (work / "candidates").iterdir()] == ["step-000002"]  # the last stays, too


def test_with_its_weights_on_every_worker_it_trains_the_same_model(cluster, sft_run, sft_file, shallow, tmp_path):
    """ZeRO's stage 2: faster where weights fit a worker. Sums of another order round elsewhere in bf16."""
    folder, result = sft_run
    other = run(small(zero={"stage": 2}), tmp_path, sft_file, shallow)
    assert other.losses == pytest.approx(result.losses, rel=1e-2)
    trained, seed = weights(folder), load_file(Path(shallow) / "model.safetensors")
    for name, tensor in weights(tmp_path).items():
        moved = (trained[name].float() - seed[name].float()).norm() if name in seed else 1.0
        assert (tensor.float() - trained[name].float()).norm() < 0.2 * moved + 1e-3, name
