"""Rows planned from lengths: nothing lost, nothing doubled, the same for a seed, little padding."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.packing import RowPlan, as_array, choose_capacity, pack, too_large
from vlm_jax.processing.rows import Size

CAPACITY = Size(100, 640, 20)
sizes = st.lists(
    st.builds(Size, st.integers(1, 100), st.integers(0, 10).map(lambda blocks: 64 * blocks), st.integers(0, 20)),
    min_size=1,
    max_size=200,
)


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(0, 5))
def test_every_example_is_packed_once_and_no_row_overflows(lengths, seed):
    array = as_array(lengths)
    order = np.random.default_rng(seed).permutation(len(array))
    rows = pack(array, order, CAPACITY)
    assert sorted(index for row in rows for index in row) == list(range(len(array)))
    for row in rows:
        assert row
        total = Size(0, 0, 0)
        for index in row:
            total += lengths[index]
        assert total.fits(CAPACITY)


def test_rows_are_well_filled():
    rng = np.random.default_rng(0)
    lengths = as_array([Size(int(n), 0, 1) for n in rng.integers(5, 60, 3000)])
    rows = pack(lengths, np.arange(3000), Size(512, 64, 512))
    assert 1 - lengths[:, 0].sum() / (len(rows) * 512) < 0.02


def test_the_plan_of_a_seed_is_always_the_same_and_epochs_differ():
    lengths = as_array([Size(10 + n % 7, 64, 2) for n in range(100)])

    def plan(seed):
        return RowPlan(lengths, CAPACITY, seed=seed).extend(epochs=2)

    assert plan(3).rows == plan(3).rows
    assert plan(3).rows != plan(4).rows
    first, second = plan(3).epoch_ends
    assert plan(3).rows[:first] != plan(3).rows[first:second]


def test_an_epoch_shows_every_example_once_and_fills_its_last_batch_with_empty_rows():
    lengths = as_array([Size(60, 64, 2)] * 7)
    plan = RowPlan(lengths, CAPACITY, seed=0).extend(epochs=3, multiple=4)
    assert len(plan) % 4 == 0
    assert Counter(index for row in plan.rows for index in row) == dict.fromkeys(range(7), 3)
    assert plan.rows.count([]) == len(plan) - 21


def test_steps_repeat_epochs_until_there_are_rows_enough():
    plan = RowPlan(as_array([Size(60, 64, 2)] * 3), CAPACITY, seed=0).extend(rows=20)
    assert len(plan) == 20 and all(plan.rows)


def test_without_shuffling_the_order_of_the_file_stays():
    plan = RowPlan(as_array([Size(60, 64, 2)] * 5), CAPACITY, seed=0, shuffle=False).extend(epochs=1)
    assert plan.rows == [[0], [1], [2], [3], [4]]


def test_what_no_row_can_hold_is_found_and_never_packed():
    lengths = as_array([Size(50, 64, 2), Size(101, 64, 2), Size(50, 704, 2), Size(50, 64, 21)])
    assert too_large(lengths, CAPACITY) == [1, 2, 3]
    with pytest.raises(ValueError, match="does not fit"):
        pack(lengths, np.arange(4), CAPACITY)


def test_a_chosen_row_holds_the_largest_example_and_whole_blocks():
    rng = np.random.default_rng(1)
    lengths = as_array([Size(int(n), 64 * int(n // 8), int(n // 5)) for n in rng.integers(20, 200, 500)])
    capacity = choose_capacity(lengths, 1024, 64)
    assert capacity.tokens == 1024 and capacity.patches % 64 == 0
    assert too_large(lengths, capacity) == []
    padding = RowPlan(lengths, capacity, seed=0).extend(epochs=1).padding()
    assert padding[0] < 0.05 and padding[1] < 0.15
