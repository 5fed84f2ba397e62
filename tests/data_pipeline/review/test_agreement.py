"""Wilson's interval and Cohen's κ against published and computed values, and where they are undefined."""

import numpy as np
import pytest
from scipy.stats import binomtest

from data_pipeline.review.agreement import Kappa, cohens_kappa, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 10), (81, 263), (999, 1000)])
def test_wilsons_interval_is_scipys(successes, n):
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_of_nothing_is_everything_and_ends_are_exact():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0 and wilson(5, 5)[1] == 1.0


def raters(table):
    """Two raters' categories from a table of counts: rows the first's, columns the second's."""
    first, second = [], []
    for row, counts in enumerate(table):
        for column, count in enumerate(counts):
            first += [row] * count
            second += [column] * count
    return first, second


def test_kappa_of_known_tables():
    # Two raters, 50 grants: agreement 0.7, by chance 0.5, κ 0.4.
    kappa = cohens_kappa(*raters([[20, 5], [10, 15]]))
    assert (kappa.n, kappa.observed, kappa.expected) == (50, 0.7, 0.5)
    assert kappa.kappa == pytest.approx(0.4)
    # Cohen 1960, table 1: three categories, 200 cases, agreement 0.7, by chance 0.41, κ 0.492.
    kappa = cohens_kappa(*raters([[88, 14, 18], [10, 40, 10], [2, 6, 12]]))
    assert kappa.observed == pytest.approx(0.7) and kappa.expected == pytest.approx(0.41)
    assert kappa.kappa == pytest.approx(0.4915, abs=1e-4)
    assert kappa.low == pytest.approx(0.384, abs=2e-3) and kappa.high == pytest.approx(0.599, abs=2e-3)


def test_kappa_of_the_opposite_of_chance_and_of_perfect_agreement():
    assert cohens_kappa([0, 1], [1, 0]).kappa == -1.0
    assert cohens_kappa([0, 1, 2], [0, 1, 2]).kappa == 1.0
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, (2, 20_000))
    assert abs(cohens_kappa(first.tolist(), second.tolist()).kappa) < 0.02


def test_kappa_is_undefined_without_items_and_where_both_use_one_category_only():
    assert cohens_kappa([], []) == Kappa(0, None, None, None, None, None)
    kappa = cohens_kappa(["accepted"] * 4, ["accepted"] * 4)
    assert (kappa.observed, kappa.expected, kappa.kappa, kappa.low) == (1.0, 1.0, None, None)
    # One category each, but not the same: never agreed, as chance would.
    assert cohens_kappa(["accepted"] * 4, ["rejected"] * 4).kappa == 0.0
    # One of them uses two: defined, and 0 whatever is agreed on.
    assert cohens_kappa([1, 1, 1, 0], [1, 1, 1, 1]).kappa == 0.0
