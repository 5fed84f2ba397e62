"""How sure a model was beside how right it was."""

import itertools

import numpy as np
import pytest

from vlm_jax.evaluation.calibration import calibration


def test_a_model_that_is_as_sure_as_it_is_right_has_a_small_error():
    rng = np.random.default_rng(0)
    sure = rng.random(20000)
    found = calibration(sure, rng.random(20000) < sure)
    assert found.error < 0.02 and len(found.bins) == 10 and all(one.n == 2000 for one in found.bins)
    assert abs(found.ranking - 5 / 6) < 0.01  # of a uniform confidence
    too_sure = calibration(np.sqrt(sure), rng.random(20000) < sure)
    assert 0.14 < too_sure.error < 0.20 and abs(too_sure.ranking - 5 / 6) < 0.01


@pytest.mark.parametrize("levels", [(0, 1), (0, 0.3, 0.6, 1)])
def test_the_ranking_is_that_of_all_pairs(levels):
    rng = np.random.default_rng(1)
    sure, right = rng.integers(0, 8, 60) / 8, rng.choice(levels, 60)
    pairs = [(i, j) for i, j in itertools.product(range(60), repeat=2) if right[i] > right[j]]
    expected = np.mean([(sure[i] > sure[j]) + (sure[i] == sure[j]) / 2 for i, j in pairs])
    assert np.isclose(calibration(sure, right).ranking, expected)


def test_bins_hold_as_many_answers_each_and_say_their_range():
    found = calibration([0.9, 0.1, 0.5, 0.7], [1, 0, 1, 0.5], bins=2)
    low, high = found.bins
    assert (low.n, low.low, low.high, low.confidence, low.score) == (2, 0.1, 0.5, 0.3, 0.5)
    assert (high.n, high.low, high.high, high.confidence, high.score) == (2, 0.7, 0.9, 0.8, 0.75)
    assert np.isclose(found.error, (0.2 + 0.05) / 2)


def test_few_or_equal_answers_are_no_error():
    assert calibration([], []) is None
    one = calibration([0.4], [1.0])
    assert one.n == 1 and one.ranking is None and np.isclose(one.error, 0.6)
