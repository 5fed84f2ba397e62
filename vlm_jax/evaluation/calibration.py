"""Whether a model knows when it is right: how sure it was of its answers beside how good they were."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

BINS = 10


@dataclasses.dataclass(frozen=True)
class Bin:
    """Answers that a model was about equally sure of.

    Attributes:
      n: answers.
      low, high: the least and the greatest confidence among them.
      confidence, score: means.
    """

    n: int
    low: float
    high: float
    confidence: float
    score: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How confidence and score go together.

    Attributes:
      error: expected calibration error, the mean distance of confidence and score over bins of as many answers each
        (Nguyen & O'Connor 2015), 0 to 1. It is above 0 by chance alone: of n answers in b bins by about √(b / n) / 3.
      ranking: the chance that of two answers with unequal scores the better one has the higher confidence, ties as half
        (area under the ROC curve for scores of 0 and 1); None where all scores are equal.
    """

    n: int
    error: float
    ranking: float | None
    bins: list[Bin]


def calibration(confidences: ArrayLike, scores: ArrayLike, *, bins: int = BINS) -> Calibration | None:
    """Of answers with a confidence in [0, 1] and a score in [0, 1]; None where there are none."""
    sure, right = np.asarray(confidences, np.float64), np.asarray(scores, np.float64)
    if not len(sure):
        return None
    order = np.argsort(sure, kind="stable")
    sure, right = sure[order], right[order]
    parts = [index for index in np.array_split(np.arange(len(sure)), min(bins, len(sure))) if len(index)]
    found = [
        Bin(len(part), float(sure[part[0]]), float(sure[part[-1]]), float(sure[part].mean()), float(right[part].mean()))
        for part in parts
    ]
    error = sum(one.n * abs(one.confidence - one.score) for one in found) / len(sure)
    return Calibration(len(sure), error, _ranking(sure, right), found)


def _ranking(sure: np.ndarray, right: np.ndarray) -> float | None:
    """Harrell's concordance (1982): pairs of unequal scores whose confidences are in the same order, ties as half."""
    levels = np.unique(right)
    by_level = [np.sort(sure[right == level]) for level in levels]
    agree, pairs = 0.0, 0
    for number, better in enumerate(by_level):
        for worse in by_level[:number]:
            below = np.searchsorted(worse, better, "left")
            agree += float((below + np.searchsorted(worse, better, "right")).sum()) / 2
            pairs += len(better) * len(worse)
    return agree / pairs if pairs else None
