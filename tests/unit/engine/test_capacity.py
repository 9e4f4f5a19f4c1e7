"""What fits on which nodes."""

from __future__ import annotations

from typing import Any

import pytest

from ray_app.engine.capacity import (
    NodeLife,
    before_deaths,
    left_by,
    placeable,
    pools_fit_cores,
    real_cores,
    room_beside,
    startable,
    taken,
    trainer_fits,
)
from ray_app.engine.settings import EngineSettings
from ray_app.train.settings import TrainSettings

NODE = {"CPU": 96.0, "GPU": 8.0}


def engine(**more: Any) -> EngineSettings:
    return EngineSettings(model="m", device="cuda", **more)


@pytest.mark.parametrize(
    ("settings", "nodes", "expected"),
    [
        (engine(), [NODE], 8),
        (engine(tensor_parallel=8), [NODE, NODE, NODE], 3),
        (engine(tensor_parallel=3), [NODE], 2),
        (engine(tensor_parallel=16), [NODE, NODE], 0),
        (engine(tensor_parallel=16, executor="ray"), [NODE, NODE], 1),
        (engine(replicas_per_gpu=4), [{"CPU": 16.0, "GPU": 1.0}], 4),
        (engine(cpus=12), [{"CPU": 40.0, "GPU": 8.0}], 3),
        (engine(), [{"CPU": 4.0}], 0),
        (EngineSettings(model="m", device="cpu", cpus=2), [{"CPU": 5.0}], 2),
        (EngineSettings(model="m", device="cpu", cpus=0, replicas=3), [{"CPU": 1.0}], 3),
    ],
)
def test_replicas_that_nodes_take(settings: EngineSettings, nodes: list[dict[str, float]], expected: int) -> None:
    assert placeable(settings, nodes) == expected


def test_pools_beside_pools() -> None:
    three = [NODE] * 3
    mixtral, judge = engine(tensor_parallel=8, replicas=1), engine(tensor_parallel=8, replicas=2)
    assert taken([mixtral, judge]) == (24, 3)
    assert room_beside(judge, [mixtral], three)
    assert not room_beside(judge, [mixtral, engine(replicas=1)], three)
    assert not room_beside(engine(cpus=300), [], three)
    small = EngineSettings(model="m", device="cpu", cpus=1)
    assert room_beside(small, [small], [{"CPU": 4.0}])
    assert not room_beside(small, [small, small], [{"CPU": 4.0}]), "reading the rows takes a CPU too"


@pytest.mark.parametrize(
    ("one", "other", "nodes", "fits"),
    [
        (engine(tensor_parallel=8), engine(tensor_parallel=8), [NODE, NODE], True),
        (engine(tensor_parallel=4, replicas=2), engine(tensor_parallel=8), [NODE, NODE], True),
        (engine(tensor_parallel=2, replicas=4), engine(tensor_parallel=4), [{"CPU": 9.0, "GPU": 6.0}] * 2, True),
        (engine(tensor_parallel=2, replicas=3), engine(tensor_parallel=4), [{"CPU": 9.0, "GPU": 5.0}] * 2, False),
        (engine(tensor_parallel=16, executor="ray"), engine(), [NODE, NODE, NODE], True),
        (engine(cpus=5, replicas=2), engine(cpus=5), [{"CPU": 9.0, "GPU": 4.0}] * 2, False),
    ],
)
def test_nodes_that_take_two_pools(one: Any, other: Any, nodes: Any, fits: bool) -> None:
    assert room_beside(one, [other], nodes) is fits
    assert room_beside(other, [one], nodes) is fits


@pytest.mark.parametrize(
    ("living", "wanted", "nodes", "fits"),
    [
        # Twelve of sixteen GPUs are taken by replicas of three: two nodes have two left each, none has four.
        ([engine(tensor_parallel=3, replicas=4)], engine(tensor_parallel=4), [NODE] * 2, False),
        ([engine(tensor_parallel=3, replicas=4)], engine(tensor_parallel=2, replicas=2), [NODE] * 2, True),
        ([engine(tensor_parallel=3, replicas=4)], engine(tensor_parallel=4, executor="ray"), [NODE] * 2, True),
        ([engine(tensor_parallel=12, executor="ray")], engine(tensor_parallel=4), [NODE] * 2, True),
        ([engine(tensor_parallel=12, executor="ray")], engine(tensor_parallel=8), [NODE] * 2, False),
        # Three pools: the smallest goes where the others leave room, whatever the order they are named in.
        ([engine(replicas=4), engine(tensor_parallel=8)], engine(tensor_parallel=4), [NODE] * 2, True),
        ([engine(replicas=5), engine(tensor_parallel=8)], engine(tensor_parallel=4), [NODE] * 2, False),
        # CPUs, too, are a node's: two with three each are no room for an engine of four.
        ([engine(cpus=5, replicas=2)], engine(cpus=4), [{"CPU": 8.0, "GPU": 8.0}] * 2, False),
        ([engine(cpus=5, replicas=2)], engine(cpus=3), [{"CPU": 8.0, "GPU": 8.0}] * 2, True),
    ],
)
def test_what_each_node_has_left_decides_not_the_sum(living: Any, wanted: Any, nodes: Any, fits: bool) -> None:
    assert room_beside(wanted, living, nodes) is fits


def test_what_pools_leave_of_each_node() -> None:
    assert left_by([engine(tensor_parallel=2, replicas=3, cpus=2), engine(tensor_parallel=8)], [NODE, NODE]) == [
        {"CPU": 95.0, "GPU": 0.0},
        {"CPU": 90.0, "GPU": 2.0},
    ]
    assert left_by([engine(tensor_parallel=12, executor="ray", cpus=100)], [NODE, NODE]) == [
        {"CPU": 0.0, "GPU": 0.0},
        {"CPU": 92.0, "GPU": 4.0},
    ]
    assert left_by([engine(replicas=9)], [NODE]) is None
    assert left_by([], [{}]) == [{"CPU": 0.0, "GPU": 0.0}]


def test_the_trainer_beside_pools() -> None:
    train = TrainSettings(workers=8, use_gpu=True, cpus_per_worker=1)
    assert trainer_fits(train, [engine(replicas=8)], [{"CPU": 200.0, "GPU": 16.0}], cores=200)
    assert not trainer_fits(train, [engine(replicas=9)], [{"CPU": 200.0, "GPU": 16.0}], cores=200)
    assert not trainer_fits(train, [engine(replicas=8)], [{"CPU": 10.0, "GPU": 16.0}], cores=10)


def test_a_training_worker_stands_on_one_node() -> None:
    """Two CPUs are free, one on each node: a worker of two fits on neither, whatever the sums say."""
    two, engines = [{"CPU": 4.0}, {"CPU": 4.0}], EngineSettings(model="m", kind="scripted", cpus=3, replicas=2)
    assert not trainer_fits(TrainSettings(workers=1, use_gpu=False, cpus_per_worker=2), [engines], two, cores=8)
    assert trainer_fits(TrainSettings(workers=2, use_gpu=False, cpus_per_worker=1), [engines], two, cores=8)
    apart = [{"CPU": 2.0, "GPU": 8.0}, {"CPU": 96.0}]  # its GPUs on one node, the CPUs on the other
    assert not trainer_fits(TrainSettings(workers=4, use_gpu=True, cpus_per_worker=1), [], apart, cores=98)
    assert trainer_fits(TrainSettings(workers=2, use_gpu=True, cpus_per_worker=1), [], apart, cores=98)


def test_what_computes_on_processors_has_real_cores() -> None:
    """Ray counts four CPUs on a machine of two cores: an engine of two threads leaves none for a trainer."""
    train = TrainSettings(workers=2, use_gpu=False)
    on_cpu = EngineSettings(model="m", device="cpu", cpu_threads=2)
    four = [{"CPU": 4.0}]
    assert trainer_fits(train, [], four, cores=2)
    assert not trainer_fits(train, [on_cpu], four, cores=2)
    assert trainer_fits(train, [on_cpu], four, cores=4)
    scripted = EngineSettings(model="m", kind="scripted", cpus=0.5)
    assert trainer_fits(train, [scripted], four, cores=2), "it computes nothing"
    assert trainer_fits(TrainSettings(workers=1), [on_cpu], [{"CPU": 4.0, "GPU": 1.0}], cores=2)
    assert pools_fit_cores([on_cpu, engine(replicas=8)], cores=2)
    assert not pools_fit_cores([on_cpu, on_cpu], cores=2)
    assert pools_fit_cores([on_cpu.model_copy(update={"cpu_threads": 1, "tensor_parallel": 2})], cores=2)


def test_real_cores_of_a_cluster() -> None:
    nodes = [
        {"NodeID": "here", "Alive": True, "Resources": {"CPU": 4.0}},
        {"NodeID": "there", "Alive": True, "Resources": {"CPU": 96.0, "GPU": 8.0}},
        {"NodeID": "head", "Alive": True, "Resources": {}},
        {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 96.0}},
    ]
    assert real_cores(nodes, "here", 2) == 98
    assert real_cores(nodes, "here", 64) == 100


ON_CPU = EngineSettings(model="m", device="cpu", cpus=2, replicas=3)
FOUR = {"CPU": 4.0}


@pytest.mark.parametrize(
    ("settings", "living", "before", "expected"),
    [
        (engine(tensor_parallel=8, replicas=2), [NODE, NODE], [], 2),
        (engine(tensor_parallel=8, replicas=2), [NODE], [], 0),  # it never had the room
        (engine(tensor_parallel=8, replicas=2), [NODE], [[NODE, NODE]], 1),
        (engine(tensor_parallel=8, replicas=3), [NODE], [[NODE, NODE]], 0),  # nor with the node that died
        (engine(tensor_parallel=8, replicas=2), [{"CPU": 9.0}], [[NODE, NODE, {"CPU": 9.0}]], 0),  # none is left
        (engine(tensor_parallel=16, executor="ray", replicas=2), [NODE] * 3, [[NODE] * 3, [NODE] * 4], 1),
        (engine(tensor_parallel=3, replicas=4), [NODE], [[NODE, NODE]], 2),
        # The rows that feed the engines need CPUs too: of four, one engine of two leaves enough, two leave none.
        (ON_CPU, [FOUR, FOUR], [], 3),
        (ON_CPU, [FOUR], [[FOUR, FOUR]], 1),
        (ON_CPU, [{"CPU": 3.0}], [[FOUR, FOUR]], 0),
        (ON_CPU, [{"CPU": 3.0}, {"CPU": 3.0}], [[FOUR, FOUR]], 2),
    ],
)
def test_replicas_to_start_after_nodes_have_died(settings: Any, living: Any, before: Any, expected: int) -> None:
    assert startable(settings, living, before) == expected


def test_what_the_cluster_was_before_each_death() -> None:
    lasting, first, second = {"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 3.0}
    lives = [NodeLife(lasting, 10), NodeLife(first, 20, 50), NodeLife(second, 30, 90)]
    assert before_deaths(lives) == [[lasting, first, second], [lasting, second]]
    assert before_deaths([NodeLife(lasting, 10)]) == []


def test_a_ray_that_was_started_anew_on_a_host_is_one_node() -> None:
    """Else a cluster that never had room for sixteen would seem to have lost half of it."""
    before = before_deaths([NodeLife(NODE, 10, 50), NodeLife(NODE, 60)])
    assert before == [[NODE]]
    assert startable(engine(replicas=16), [NODE], before) == 0
