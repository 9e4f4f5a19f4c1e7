"""The plan of batches: every row once an epoch, within the budget, the same for everyone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.train.batches import PlanSettings, pack, plan_epoch, total_steps

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=120)
SETTINGS = st.builds(
    PlanSettings,
    workers=st.integers(1, 5),
    tokens_per_batch=st.integers(100, 400),
    accumulation=st.integers(1, 3),
    batch_rows=st.none() | st.integers(1, 40),
    batching=st.sampled_from(["packed", "bucketed"]),
    seed=st.integers(0, 2**63 - 1),
)


@given(LENGTHS, SETTINGS, st.integers(0, 3))
def test_every_unit_once_within_budget_and_equal_rounds(lengths, settings, epoch):
    steps = plan_epoch(lengths, settings, epoch)
    assert sorted(unit for step in steps for unit in step.units) == list(range(len(lengths)))
    for step in steps:
        assert len(step.micro) == settings.workers
        assert len({len(worker) for worker in step.micro}) == 1
        for batch in (batch for worker in step.micro for batch in worker if batch):
            size = [lengths[unit] for unit in batch]
            cost = sum(size) if settings.batching == "packed" else len(size) * max(size)
            assert cost <= settings.tokens_per_batch


@given(LENGTHS, SETTINGS)
def test_the_plan_is_a_function_of_its_arguments(lengths, settings):
    assert plan_epoch(lengths, settings, 1) == plan_epoch(list(lengths), settings, 1)


def test_epochs_and_seeds_change_the_order():
    lengths = [10] * 64
    settings = PlanSettings(workers=2, tokens_per_batch=100, seed=1)
    first, second = plan_epoch(lengths, settings, 0), plan_epoch(lengths, settings, 1)
    other = plan_epoch(lengths, PlanSettings(workers=2, tokens_per_batch=100, seed=2), 0)
    assert [s.units for s in first] != [s.units for s in second]
    assert [s.units for s in first] != [s.units for s in other]


def test_batch_rows_fixes_the_rows_of_a_step_over_all_workers():
    steps = plan_epoch([50] * 70, PlanSettings(workers=4, tokens_per_batch=100, batch_rows=32), 0)
    assert [len(step.units) for step in steps] == [32, 32, 6]
    assert all(len(batch) == 2 for batch in steps[0].micro[3])  # 8 rows a worker, two to a micro-batch


@pytest.mark.parametrize("workers", [5, 24, 40])
def test_a_step_of_32_pairs_over_any_number_of_workers(workers):
    """As evenly as it goes; every worker takes part in as many micro-batches as the others."""
    steps = plan_epoch([60] * 70, PlanSettings(workers=workers, tokens_per_batch=100, batch_rows=32), 0)
    assert [len(step.units) for step in steps] == [32, 32, 6]
    for step in steps:
        shares = [sum(map(len, worker)) for worker in step.micro]
        assert (len(shares), sum(shares)) == (workers, len(step.units))
        assert max(shares) - min(shares) <= 1
        assert len({len(worker) for worker in step.micro}) == 1


def test_packing_leaves_little_room_at_judgment_lengths():
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(np.log(1000), 0.6, 4000), 64, 4096).astype(int).tolist()
    bins = pack(range(len(lengths)), lengths, 8192)
    assert sum(lengths) / (len(bins) * 8192) > 0.97


def test_a_unit_above_the_budget_is_an_error():
    with pytest.raises(ValueError, match="unit 1 has 101 tokens"):
        plan_epoch([5, 101], PlanSettings(workers=1, tokens_per_batch=100), 0)


def test_total_steps_stops_at_max_steps():
    settings = PlanSettings(workers=2, tokens_per_batch=100)
    assert total_steps([100] * 10, settings, epochs=2, max_steps=None) == 10
    assert total_steps([100] * 10, settings, epochs=2, max_steps=7) == 7
