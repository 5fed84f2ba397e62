"""Two figures of a review: a share with its interval, and how far two reviewers agree beyond chance."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

_Z95 = 1.959963984540054
"""Quantile of the normal distribution that 95 % lie within, on both sides."""


def wilson(successes: int, n: int, z: float = _Z95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927): (low, high), within [0, 1]; of nothing, (0, 1)."""
    if not n:
        return 0.0, 1.0
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    # Exact at the ends, where rounding would leave 1e-17.
    return 0.0 if successes == 0 else low, 1.0 if successes == n else high


@dataclass(frozen=True)
class Kappa:
    """Agreement of two raters on `n` items.

    Attributes:
      observed: the share of items on which they agree; None without items.
      expected: what chance would give by how often each uses each category; None without items.
      kappa: None where it is undefined: without items, and where both put every item into one and the same category,
        since chance alone would agree on all of them (0/0).
      low, high: 95 % interval from the large-sample standard error of Cohen 1960, within [-1, 1]; None as `kappa`.
    """

    n: int
    observed: float | None
    expected: float | None
    kappa: float | None
    low: float | None
    high: float | None


def cohens_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> Kappa:
    """Cohen's κ (1960), unweighted: (observed - expected) / (1 - expected).

    Args:
      first, second: the category that each rater put each item into; item by item.
    """
    pairs = list(zip(first, second, strict=True))
    n = len(pairs)
    if not n:
        return Kappa(0, None, None, None, None, None)
    agreed = sum(a == b for a, b in pairs)
    of_first, of_second = Counter(first), Counter(second)
    by_chance = sum(count * of_second[category] for category, count in of_first.items())  # times n²
    observed, expected = agreed / n, by_chance / n**2
    if by_chance == n * n:
        return Kappa(n, observed, expected, None, None, None)
    kappa = (observed - expected) / (1 - expected)
    error = math.sqrt(observed * (1 - observed) / n) / (1 - expected)
    return Kappa(n, observed, expected, kappa, max(-1.0, kappa - _Z95 * error), min(1.0, kappa + _Z95 * error))
