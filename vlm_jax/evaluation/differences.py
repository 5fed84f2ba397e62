"""Whether one model answers the same questions better than another: the mean difference, how sure it is, and a test.

Questions about one image are not independent: what is drawn again, or has its sign turned, is a cluster of them.
"""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from vlm_jax.evaluation.statistics import ALIKE, by_cluster, in_parts, ratio_interval

TEST = "sign-flip permutation test of the mean paired difference, two-sided, clusters as units"
FLIPS = 9999
"""Drawn sign patterns; with at most `EXACT` clusters that differ all of them are counted instead."""
EXACT = 13


@dataclasses.dataclass(frozen=True)
class Difference:
    """Scores of one model less those of another on the same questions.

    Attributes:
      n, clusters: questions that both answered, and clusters of them.
      mean, low, high: of the differences, in the unit of the scores, with its 95 % interval.
      p: how often signs turned at random give a mean as far from zero (`TEST`).
      better, worse: questions that the first has a higher and a lower score on.
    """

    n: int
    clusters: int
    mean: float
    low: float
    high: float
    p: float
    better: int
    worse: int


def paired_difference(
    scores: ArrayLike, others: ArrayLike, clusters: Sequence[Hashable] | None = None, *, seed: int = 0
) -> Difference:
    """`scores` less `others`, question by question.

    The interval is the percentile bootstrap over clusters (Davison & Hinkley 1997, section 3.8); where no two clusters
    differ, that of the rule of three. The test is Fisher's (1935) randomisation of signs: under the hypothesis that the
    two models are alike, each cluster's difference is as likely as its negative.

    Args:
      clusters: what questions belong to, such as their image; None: each stands for itself.

    Raises:
      ValueError: no question, or lengths that differ.
    """
    differences = np.asarray(scores, np.float64) - np.asarray(others, np.float64)
    if not len(differences):
        raise ValueError("no questions to compare on")
    sums, counts = by_cluster(differences, clusters)
    low, high = ratio_interval(sums, counts, seed=seed, bounds=(-1.0, 1.0))
    return Difference(
        n=len(differences),
        clusters=len(sums),
        mean=float(differences.mean()),
        low=low,
        high=high,
        p=sign_flip_p(sums, seed=seed),
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
    )


def sign_flip_p(sums: Float[np.ndarray, " c"], *, seed: int = 0) -> float:
    """Share of all patterns of signs, or of `FLIPS` drawn ones and the one that was seen, under which the sum of the
    clusters' differences is at least as far from zero."""
    sums = sums[np.abs(sums) > 1e-12]
    if not len(sums):
        return 1.0
    # As far but for rounding: sums of equal numbers in another order differ in their last bits.
    seen = abs(sums.sum()) * (1 - 1e-9)
    if len(sums) <= EXACT:
        patterns = np.arange(1 << len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float((np.abs((2 * patterns - 1) @ sums) >= seen).mean())
    # Of differences of one size, how many are turned is a draw from a binomial distribution.
    sizes, members = np.unique(np.abs(sums), return_counts=True)
    rng = np.random.default_rng(seed)
    if len(sizes) < len(sums) / ALIKE:
        drawn = (2 * rng.binomial(members, 0.5, (FLIPS, len(sizes))) - members) @ sizes
    else:
        bits = (rng.bytes(count * -(-len(sums) // 8)) for count in in_parts(FLIPS, len(sums)))
        signs = (np.unpackbits(np.frombuffer(one, np.uint8).reshape(-1, -(-len(sums) // 8)), axis=1) for one in bits)
        drawn = np.concatenate([2 * (one[:, : len(sums)] @ sums) - sums.sum() for one in signs])
    return (int((np.abs(drawn) >= seen).sum()) + 1) / (FLIPS + 1)
