"""How sure a mean of scores is, and what can be had without looking."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vlm_jax.evaluation.metrics.any_language import normalise


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


def interval(
    scores: Sequence[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979), items resampled with replacement.

    Where all scores are equal resampling says nothing; the interval is then the rule of three (Hanley & Lippman-Hand
    1983): at 95 %, up to 3 of n unseen items may differ.
    """
    values = np.asarray(scores, np.float64)
    if not len(values):
        return 0.0, 1.0
    if np.all(values == values[0]):
        width = min(1.0, -np.log(1 - level) / len(values))
        return max(0.0, values[0] - width), min(1.0, values[0] + width)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            # in slices: resamples × items may be hundreds of millions
            values[rng.integers(0, len(values), (min(100, resamples - start), len(values)))].mean(axis=1)
            for start in range(0, resamples, 100)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
