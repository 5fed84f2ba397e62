"""The interval of a mean."""

import numpy as np
import pytest

from vlm_jax.evaluation.statistics import by_cluster, interval, ratio_interval


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        scores = (rng.random(80) < 0.7).astype(float)
        low, high = ratio_interval(*by_cluster(scores, None), bounds=(0.0, 1.0), resamples=500, seed=trial)
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 199


def test_the_interval_of_equal_scores_is_the_rule_of_three():
    low, high = interval([1.0] * 100)
    assert high == 1.0 and low == pytest.approx(0.97, abs=0.001)
    assert interval([]) == (0.0, 1.0)


def test_the_interval_is_the_same_every_time_and_narrows_with_more_items():
    scores = [1.0, 0.0, 1.0, 1.0] * 25
    assert interval(scores) == interval(scores)
    wide, narrow = interval(scores), interval(scores * 16)
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 3
