"""Differences between two models on the same questions, and how sure they are."""

import itertools
import math

import numpy as np
import pytest

from vlm_jax.evaluation.differences import EXACT, by_cluster, paired_difference, ratio_interval, sign_flip_p


def naive_p(sums):
    """Every pattern of signs, one by one."""
    seen = abs(sum(sums))
    patterns = list(itertools.product((-1, 1), repeat=len(sums)))
    far = [abs(math.fsum(s * d for s, d in zip(signs, sums, strict=True))) >= seen - 1e-9 for signs in patterns]
    return sum(far) / len(patterns)


@pytest.mark.parametrize("seed", range(20))
def test_few_clusters_are_tested_with_all_patterns_of_signs(seed):
    rng = np.random.default_rng(seed)
    sums = rng.choice([-1.0, -0.3, 0.3, 0.6, 1.0], rng.integers(1, 10))
    assert sign_flip_p(sums) == naive_p(sums)


def test_the_test_of_answers_that_are_right_or_wrong_is_mcnemars():
    # 8 that only one has right and 2 that only the other has: the exact binomial test of 8 of 10.
    scores, others = [1] * 8 + [0] * 2 + [1] * 5, [0] * 8 + [1] * 2 + [1] * 5
    found = paired_difference(scores, others)
    expected = 2 * sum(math.comb(10, k) for k in range(8, 11)) / 2**10
    assert np.isclose(found.p, expected) and (found.better, found.worse, found.n) == (8, 2, 15)
    assert np.isclose(found.mean, 6 / 15) and found.low < found.mean < found.high


def test_many_clusters_are_tested_with_drawn_patterns_near_the_exact_p():
    rng = np.random.default_rng(0)
    discordant, only = 60, 38
    sums = np.r_[np.ones(only), -np.ones(discordant - only), np.zeros(200)][rng.permutation(discordant + 200)]
    expected = 2 * sum(math.comb(discordant, k) for k in range(only, discordant + 1)) / 2**discordant
    assert discordant > EXACT and abs(sign_flip_p(sums) - expected) < 4 * math.sqrt(expected / 9999)
    assert sign_flip_p(np.ones(100)) == 1 / 10000 and sign_flip_p(np.zeros(5)) == 1


def test_under_no_difference_p_is_as_often_small_as_it_says():
    rng = np.random.default_rng(1)
    ps = []
    for _ in range(400):
        clusters = np.repeat(np.arange(12), 5)
        shift = rng.normal(size=12)[clusters]  # questions about one image go together
        ps.append(paired_difference(rng.random(60) + shift, rng.random(60), clusters.tolist()).p)
    assert abs(np.mean(np.array(ps) <= 0.1) - 0.1) < 0.05
    alone = [  # which is not so where they are taken for independent ones
        paired_difference(rng.random(60) + rng.normal(size=12)[clusters], rng.random(60)).p for _ in range(100)
    ]
    assert np.mean(np.array(alone) <= 0.1) > 0.25


def test_clusters_are_summed_in_the_order_of_their_first():
    sums, counts = by_cluster(np.array([1.0, 0.0, 1.0, 0.5]), ["b", "a", "b", "c"])
    assert sums.tolist() == [2.0, 0.0, 0.5] and counts.tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match="4 values and 2 clusters"):
        by_cluster(np.zeros(4), ["a", "b"])


def test_an_interval_of_clusters_is_wider_than_that_of_their_questions():
    rng = np.random.default_rng(2)
    values = np.repeat(rng.integers(0, 2, 40), 10).astype(float)
    low, high = ratio_interval(*by_cluster(values, np.repeat(np.arange(40), 10).tolist()), bounds=(0.0, 1.0))
    low_alone, high_alone = ratio_interval(*by_cluster(values, None), bounds=(0.0, 1.0))
    assert 2.5 < (high - low) / (high_alone - low_alone) < 4  # √10
    # of the mean's standard error, 1.96 to each side
    error = values.reshape(40, 10).mean(1).std() / math.sqrt(40)
    assert np.allclose([low, high], [values.mean() - 1.96 * error, values.mean() + 1.96 * error], atol=0.03)


def test_where_nothing_differs_the_interval_is_the_rule_of_three():
    found = paired_difference([1.0] * 100, [1.0] * 100)
    assert np.allclose([found.low, found.high], [-0.03, 0.03], atol=1e-3) and (found.mean, found.p) == (0, 1)
    low, high = ratio_interval(np.ones(100), np.ones(100, int), bounds=(0.0, 1.0))
    assert np.allclose([low, high], [0.97, 1.0], atol=1e-3)


def test_no_questions_cannot_be_compared():
    with pytest.raises(ValueError, match="no questions"):
        paired_difference([], [])


@pytest.mark.parametrize("name, grain", [("by their number", 0.25), ("one by one", 1e-9)])
def test_alike_clusters_are_drawn_by_their_number_and_others_one_by_one_to_the_same_end(name, grain):
    rng = np.random.default_rng(3)
    values = np.round(rng.normal(0.05, 0.5, 400) / grain) * grain
    error = values.std() / 20
    low, high = ratio_interval(values, np.ones(400, int), bounds=(-1.0, 1.0))
    assert np.allclose([low, high], [values.mean() - 1.96 * error, values.mean() + 1.96 * error], atol=0.01)
    expected = math.erfc(abs(values.sum()) / math.sqrt(2 * (values**2).sum()))
    assert abs(sign_flip_p(values) - expected) < 0.02
