"""More asked for than a local Ray has: one line before any work, not half an hour of waiting."""

from __future__ import annotations

from collections.abc import Callable

from loop_runs import Loop, scripted

Make = Callable[..., Loop]


def test_engines_and_trainers_that_will_never_fit_are_refused_before_any_work(loop: Make, model: str) -> None:
    run = loop(iterations=1, judge=scripted(model))
    refused = run("--judge.replicas", "9")
    assert refused.code == 2
    asked = "judge: 9 engine(s) with 0 GPUs and 0.5 CPUs each are asked for"
    assert f"{asked}; the cluster has 0 GPUs and 4 CPUs on 1 node(s), room for 8" in refused.one_line
    refused = run("--train.workers", "9")
    assert refused.code == 2
    assert "train.cpus_per_worker: 9 × 1 CPUs are wanted, the cluster has 4" in refused.one_line
    assert not (run.run / "instructions").exists()
    assert not (run.run / "lease.json").exists()
