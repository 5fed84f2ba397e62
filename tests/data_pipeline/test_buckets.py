"""Shapes of batches chosen from data: every example fits one, little of them stays unused, as few as pay."""

import numpy as np
import pytest

from data_pipeline.buckets import Costs, choose_buckets
from data_pipeline.mixture import Component, Mixture
from data_pipeline.packing import Plan, as_array, bucket_of, unused_shares
from vlm_jax.errors import InputError
from vlm_jax.processing.example import Size

COSTS = Costs(1.0, 0.2, 0.1)


def images_of_any_size(count=1000, visual_tokens=1024, blocks=4):
    """Sizes of questions of all lengths about images of all sizes, some of which nearly fill a row."""
    rng = np.random.default_rng(0)
    visual = np.minimum(np.exp(rng.uniform(np.log(9), np.log(1300), count)), visual_tokens).astype(int)
    words = rng.integers(2, 180, count)
    slots = -(-visual // 16) * 16 * blocks
    return np.stack([visual + words + 20, slots, words], axis=1)


def unused(lengths, buckets, examples):
    """Shares of token slots and patch slots that stay unused in a run, and of all slots by what they cost."""
    order = Mixture([Component("all", len(lengths))])
    plan = Plan(order.take, lambda places: lengths[places[:, 1]], buckets, seed=0, examples=examples)
    batches = [plan[number] for number in range(len(plan))]
    counts, shares = unused_shares(buckets, batches, lambda place: lengths[place[1]])
    slots = as_array([bucket.size for bucket in buckets]) * (counts * [bucket.rows for bucket in buckets])[:, None]
    costs = np.array(COSTS.columns)
    tokens, patches, _ = (slots * shares).sum(axis=0) / slots.sum(axis=0)
    return tokens, patches, (slots * shares @ costs).sum() / (slots @ costs).sum()


@pytest.mark.parametrize("tokens, context, count", [(1024, 2048, 3), (2048, 0, 1), (4096, 0, 1)])
def test_images_of_any_size_waste_little(tokens, context, count):
    lengths = images_of_any_size()
    context = max(context, tokens)
    buckets = choose_buckets(
        lengths, rows=2, tokens=tokens, max_sequence_length=context, count=count, block_slots=64, costs=COSTS
    )
    assert (bucket_of(lengths, as_array([bucket.size for bucket in buckets])) >= 0).all()
    tokens, patches, weighted = unused(lengths, buckets, 4000)
    assert min(tokens, patches) < 0.05 and weighted < 0.08


def test_a_row_that_must_hold_the_largest_image_is_not_every_row():
    """One image in fifty takes as many patch slots as four rows of the others: it gets rows of its own."""
    lengths = as_array([Size(900, 3584, 10) if n % 50 == 0 else Size(100, 64 + n % 2 * 64, 10) for n in range(1000)])
    one, two = (
        choose_buckets(lengths, rows=4, tokens=1024, max_sequence_length=1024, count=count, block_slots=64, costs=COSTS)
        for count in (1, 2)
    )
    assert [bucket.rows for bucket in two] == [4, 4] and two[0].size.patches < two[1].size.patches
    assert unused(lengths, two, 3000)[2] < 0.08 < unused(lengths, one, 3000)[2]


def test_chosen_buckets_hold_every_example_up_to_the_context():
    rng = np.random.default_rng(1)
    wanted = np.minimum(rng.lognormal(5.0, 0.8, 4000).astype(int) + 20, 3900)
    lengths = as_array([Size(int(n), 64 * int(n // 20), int(n // 5)) for n in wanted])
    buckets = choose_buckets(
        lengths, rows=16, tokens=1024, max_sequence_length=4096, count=3, block_slots=64, rows_multiple=2
    )
    assert [bucket.size for bucket in buckets] == sorted({bucket.size for bucket in buckets})
    assert len(buckets) <= 3 and buckets[0].rows == 16 and all(bucket.rows % 2 == 0 for bucket in buckets)
    assert all(bucket.size.patches % 64 == 0 for bucket in buckets)
    assert (bucket_of(lengths, as_array([bucket.size for bucket in buckets])) >= 0).all()
    tokens, patches, weighted = unused(lengths, buckets, 4000)
    assert min(tokens, patches) < 0.05 and weighted < 0.08


def test_one_bucket_is_enough_where_all_examples_fit_a_row():
    lengths = as_array([Size(100, 64, 10)] * 50)
    (bucket,) = choose_buckets(lengths, rows=4, tokens=1024, max_sequence_length=4096, count=4, block_slots=64)
    assert bucket.size.tokens == 1024
    with pytest.raises(InputError, match="no examples"):
        choose_buckets(lengths[:0], rows=4, tokens=1024, max_sequence_length=4096, count=4, block_slots=64)
    with pytest.raises(InputError, match="not a multiple"):
        choose_buckets(lengths, rows=4, tokens=1024, max_sequence_length=4096, count=4, block_slots=64, patches=100)


def test_what_the_settings_give_is_kept():
    lengths = images_of_any_size(200)
    (bucket,) = choose_buckets(
        lengths, rows=4, tokens=2048, max_sequence_length=2048, count=1, block_slots=64, patches=4224, supervised=96
    )
    assert bucket.size == Size(2048, 4224, 96)
    buckets = choose_buckets(
        lengths, rows=4, tokens=1024, max_sequence_length=2048, count=2, block_slots=64, patches=1024
    )
    assert buckets[0].size.patches == 1024 and (bucket_of(lengths, as_array([b.size for b in buckets])) >= 0).all()


def test_examples_that_are_all_longer_than_a_row_are_no_trouble_here():
    lengths = as_array([Size(100, 64, 10)] * 5)
    (bucket,) = choose_buckets(lengths, rows=4, tokens=16, max_sequence_length=16, count=1, block_slots=64)
    assert bucket.size.tokens == 16


def test_above_a_cut_rows_are_as_long_as_the_data_leaves_them():
    """A fifth of the images' tokens stay. Examples that are all text set the length where there is one shape of row."""
    rng, costs = np.random.default_rng(0), Costs(0.25, 0.2, 0.1, (0.75,))
    words, images = rng.integers(20, 60, 400), rng.integers(100, 200, 400)
    sizes = np.stack([words + images, -(-images // 16) * 64, words // 2, words + images // 5], axis=1)
    options = {"rows": 4, "tokens": 1024, "max_sequence_length": 1024, "block_slots": 64, "costs": costs}
    (bucket,) = choose_buckets(sizes, count=1, **options)
    share = sizes[:, 3].sum() / sizes[:, 0].sum()
    assert bucket.size.tokens == 1024 and share * 1024 <= bucket.size.above[0] <= 1.3 * share * 1024
    assert bucket.size.above[0] % 64 == 0
    text = np.array([[1000, 0, 500, 1000]] * 4)
    (one,) = choose_buckets(np.concatenate([sizes, text]), count=1, **options)
    assert one.size.above == (1024,)
    first, last = choose_buckets(np.concatenate([sizes, text]), count=2, **options)
    assert first.size.above[0] <= 1.3 * share * 1024 and last.size.above == (1024,)
