"""The order of a mixture: exact shares at every moment, own seeds, and the same from wherever one begins."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.mixture import Component, Mixture
from vlm_jax.errors import InputError

parts = st.lists(
    st.builds(
        Component,
        name=st.just("p"),
        examples=st.integers(1, 40),
        weight=st.floats(0.01, 100, allow_nan=False),
        seed=st.integers(0, 9),
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=80)
@given(parts, st.integers(0, 3000), st.integers(1, 200), st.booleans())
def test_positions_are_the_same_from_wherever_one_begins(given_parts, start, count, shuffle):
    whole = Mixture(given_parts, shuffle=shuffle).take(0, start + count)
    np.testing.assert_array_equal(Mixture(given_parts, shuffle=shuffle).take(start, count), whole[start:])


@settings(deadline=None, max_examples=80)
@given(parts, st.integers(1, 2000))
def test_every_part_has_its_share_at_every_moment(given_parts, count):
    weights = np.array([part.weight for part in given_parts])
    drawn = np.bincount(Mixture(given_parts).take(0, count)[:, 0], minlength=len(weights))
    assert drawn.sum() == count
    assert np.abs(drawn - count * weights / weights.sum()).max() <= len(weights)


@settings(deadline=None, max_examples=40)
@given(parts)
def test_a_part_shows_each_of_its_examples_once_before_it_begins_anew(given_parts):
    order = Mixture(given_parts).take(0, 2000)
    for number, part in enumerate(given_parts):
        places = order[order[:, 0] == number, 1]
        for begin in range(0, len(places) - part.examples + 1, part.examples):
            assert sorted(places[begin : begin + part.examples]) == list(range(part.examples))


def test_a_part_keeps_its_own_order_whatever_is_mixed_with_it():
    alone = Mixture([Component("a", 50, seed=3)]).take(0, 100)[:, 1]
    mixed = Mixture([Component("b", 7, weight=2.0), Component("a", 50, seed=3)]).take(0, 400)
    np.testing.assert_array_equal(mixed[mixed[:, 0] == 1, 1][:100], alone)
    other = Mixture([Component("a", 50, seed=4)]).take(0, 100)[:, 1]
    assert (alone != other).any() and (alone[:50] != alone[50:]).any()


def test_without_shuffling_the_order_of_the_file_stays():
    assert Mixture([Component("a", 3)], shuffle=False).take(2, 5)[:, 1].tolist() == [2, 0, 1, 2, 0]


def test_a_hundred_million_positions_away_takes_no_longer():
    order = Mixture([Component("a", 1000, weight=0.7), Component("b", 30, weight=0.3)]).take(10**8, 1000)
    assert Counter(order[:, 0].tolist()) == {0: 700, 1: 300}


def test_all_impossible_parts_are_told_together():
    with pytest.raises(InputError) as caught:
        Mixture(
            [
                Component("a", 0),
                Component("b", 3, weight=0.0),
                Component("c", 3, weight=float("nan")),
                Component("d", 2, weight=-1.0),
            ]
        )
    assert [line.split(":")[0] for line in caught.value.lines] == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="no parts"):
        Mixture([])


def test_parts_of_one_length_and_huge_weights_are_drawn_evenly_and_each_in_its_own_order():
    mixture = Mixture([Component("a", 50, 1e308), Component("b", 50, 1e308)])
    drawn = mixture.take(10_000, 100)
    assert np.bincount(drawn[:, 0]).tolist() == [50, 50]
    one, other = (drawn[drawn[:, 0] == part, 1].tolist() for part in range(2))
    assert one != other
