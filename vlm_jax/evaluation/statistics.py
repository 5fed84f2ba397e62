"""How sure a mean of scores is, and what can be had without looking.

Questions about one image are not independent: what is drawn again is a cluster of them.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int

from vlm_jax.evaluation.metrics.any_language import normalise

RESAMPLES = 2000
ALIKE = 8
"""Clusters of each kind, on average, from which on drawing kinds by their number is the quicker way."""


def majority(answers: Sequence[Sequence[str]], kinds: Sequence[str]) -> float:
    """The share of questions that are right by always giving the commonest answer of their kind, without looking.

    Args:
      answers: the accepted answers of each question; the first stands for it.
      kinds: the kind of each question: what can be told from its text alone.
    """
    by_kind: dict[str, Counter] = {}
    for accepted, kind in zip(answers, kinds, strict=True):
        by_kind.setdefault(kind, Counter())[normalise(accepted[0])] += 1
    return sum(max(counts.values()) for counts in by_kind.values()) / max(1, len(answers))


def interval(scores: Sequence[float], clusters: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """The 95 % interval of the mean of scores in [0, 1], by `ratio_interval`; of none, all of it.

    Args:
      clusters: what questions belong to, such as their image; None: each stands for itself.
    """
    if not len(scores):
        return 0.0, 1.0
    return ratio_interval(*by_cluster(np.asarray(scores, np.float64), clusters), bounds=(0.0, 1.0))


def by_cluster(
    values: Float[np.ndarray, " n"], clusters: Sequence[Hashable] | None
) -> tuple[Float[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    """(sum, number of values) of each cluster, in the order of their first."""
    if clusters is None:
        return values, np.ones(len(values), np.int64)
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], np.int64)
    if len(index) != len(values):
        raise ValueError(f"{len(values)} values and {len(index)} clusters")
    return np.bincount(index, values, len(numbers)), np.bincount(index, minlength=len(numbers))


def ratio_interval(
    sums: Float[np.ndarray, " c"],
    counts: Int[np.ndarray, " c"],
    *,
    bounds: tuple[float, float],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over all values, clusters resampled with replacement (Efron 1979).

    Where all clusters have the same mean resampling says nothing; the interval is then the rule of three (Hanley &
    Lippman-Hand 1983): at 95 %, up to 3 of c unseen clusters may lie at either of the bounds.
    """
    means = sums / counts
    if np.ptp(means) < 1e-12:
        width = min(1.0, -np.log(1 - level) / len(sums))
        low, high = bounds
        return float(means[0] - width * (means[0] - low)), float(means[0] + width * (high - means[0]))
    # Clusters that are alike are drawn by their number: of 10,000 right and wrong answers two numbers a resample.
    kinds, members = np.unique(np.stack([sums, counts], axis=1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    if len(kinds) < len(sums) / ALIKE:
        totals = rng.multinomial(len(sums), members / len(sums), resamples) @ kinds
    else:
        indices = (rng.integers(0, len(sums), (count, len(sums))) for count in in_parts(resamples, len(sums)))
        # Two sums of one column each: a fourth of the time that rows of both take.
        totals = np.concatenate(
            [np.stack([sums[index].sum(axis=1), counts[index].sum(axis=1)], 1) for index in indices]
        )
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def in_parts(draws: int, width: int) -> list[int]:
    """So many draws of so many numbers, in parts that fit in memory."""
    part = max(1, (1 << 20) // width)
    return [min(part, draws - start) for start in range(0, draws, part)]
