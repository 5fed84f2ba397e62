"""Rows planned from lengths: nothing lost, nothing doubled, the same for a seed, little padding."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.mixture import Component, Mixture
from data_pipeline.packing import Bucket, Packer, Plan, as_array, bucket_of, unused_shares
from vlm_jax.errors import InputError
from vlm_jax.processing.example import Size

SMALL, LARGE = Bucket(4, Size(100, 640, 20)), Bucket(2, Size(300, 1280, 60))
sizes = st.lists(
    st.builds(Size, st.integers(1, 300), st.integers(0, 20).map(lambda blocks: 64 * blocks), st.integers(0, 60)),
    min_size=1,
    max_size=200,
)


def plan_of(lengths, *, seed=0, buckets=(SMALL, LARGE), window=64, shuffle=True, **bounds):
    array = as_array(lengths)
    order = Mixture([Component("all", len(array), seed=seed)], shuffle=shuffle)
    bounds = bounds or {"examples": len(array)}
    measure = lambda places: array[places[:, 1]]  # noqa: E731
    plan = Plan(order.take, measure, buckets, seed=seed, shuffle=shuffle, window=window, **bounds)
    return plan


def batches_of(plan):
    return [plan[number] for number in range(len(plan))]


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(0, 5))
def test_every_example_is_planned_once_and_no_row_overflows(lengths, seed):
    plan = plan_of(lengths, seed=seed)
    seen = []
    for batch in batches_of(plan):
        bucket = plan.buckets[batch.bucket]
        assert len(batch.rows) == bucket.rows
        for row in batch.rows:
            total = Size(0, 0, 0)
            for place in row:
                total += lengths[place[1]]
            assert total.fits(bucket.size)
        seen += [place for row in batch.rows for place in row]
    assert sorted(seen) == [(0, index) for index in range(len(lengths))]


@settings(deadline=None, max_examples=15)
@given(sizes, st.integers(0, 20), st.integers(8, 80))
def test_a_plan_goes_on_from_any_batch_as_if_never_stopped(lengths, number, window):
    whole = plan_of(lengths, window=window, steps=25)
    expected = [whole[index] for index in range(number, 25)]
    stopped = plan_of(lengths, window=window, steps=25)
    stopped[number]
    state = json.loads(json.dumps(stopped.state(number)))
    again = plan_of(lengths, window=window, steps=25)
    again.restore(state)
    assert [again[index] for index in range(number, 25)] == expected


def test_a_plan_of_other_shapes_is_not_gone_on_with():
    state = plan_of([Size(10, 64, 2)] * 9).state(0)
    with pytest.raises(InputError, match="shapes follow the data"):
        plan_of([Size(10, 64, 2)] * 9, buckets=(SMALL,)).restore(state)


def test_the_plan_of_a_seed_is_always_the_same_and_epochs_differ():
    lengths = [Size(10 + n % 7, 64, 2) for n in range(100)]
    one, two, other = (batches_of(plan_of(lengths, seed=seed, examples=200)) for seed in (3, 3, 4))
    assert one == two and one != other
    plan = plan_of(lengths, examples=200)
    places = [place[1] for batch in batches_of(plan) for row in batch.rows for place in row]
    assert Counter(places) == dict.fromkeys(range(100), 2)


def test_rows_are_well_filled():
    rng = np.random.default_rng(0)
    lengths = [Size(int(n), 0, 1) for n in rng.integers(5, 60, 3000)]
    plan = plan_of(lengths, buckets=[Bucket(1, Size(512, 64, 512))], window=256)
    array = as_array(lengths)
    (batches,), ((tokens, patches, supervised),) = unused_shares(
        plan.buckets, batches_of(plan), lambda place: array[place[1]]
    )
    assert batches == len(plan) and tokens < 0.02
    assert patches == 1.0 and supervised == pytest.approx(1 - 3000 / 512 / batches)


def test_the_last_batches_of_an_epoch_are_filled_with_empty_rows():
    plan = plan_of([Size(60, 64, 2)] * 7, examples=21)
    batches = batches_of(plan)
    assert sum(row == [] for batch in batches for row in batch.rows) == 4 * len(batches) - 21
    with pytest.raises(IndexError):
        plan[len(batches)]


def test_without_shuffling_the_order_of_the_file_stays():
    batches = batches_of(plan_of([Size(60, 64, 2)] * 5, shuffle=False))
    assert [row for batch in batches for row in batch.rows if row] == [[(0, 0)], [(0, 1)], [(0, 2)], [(0, 3)], [(0, 4)]]


def test_what_is_left_out_is_never_planned():
    plan = plan_of([Size(60, 64, 2)] * 6)
    inner = plan._measure
    plan._measure = lambda places: np.where((places[:, 1] % 2)[:, None] > 0, -1, inner(places))
    places = [place[1] for batch in batches_of(plan) for row in batch.rows for place in row]
    assert sorted(places) == [0, 2, 4]


def test_small_examples_fill_what_large_ones_leave_free():
    packer = Packer([SMALL, LARGE])
    assert packer.add((0, 0), np.array([250, 640, 10])) is None
    assert packer.add((0, 1), np.array([50, 64, 2])) is None
    assert packer.add((0, 2), np.array([50, 64, 2])) is None
    assert packer.flush() == [(0, [(0, 2)]), (1, [(0, 0), (0, 1)])]
    with pytest.raises(ValueError, match="fits no row"):
        packer.add((0, 3), np.array([301, 64, 2]))


def test_the_bucket_of_an_example_is_the_first_that_holds_it():
    limits = as_array([SMALL.size, LARGE.size])
    lengths = as_array([Size(100, 640, 20), Size(101, 64, 2), Size(50, 704, 2), Size(50, 64, 61)])
    assert bucket_of(lengths, limits).tolist() == [0, 1, 1, -1]
