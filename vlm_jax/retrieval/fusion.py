"""Several similarities of a question and a passage as one order of passages.

A question has words and an image, and so have passages: four similarities, `CHANNELS`. A weighted sum of them as they
are is the similarity of summed vectors, which UniIR (Wei et al. 2023, https://arxiv.org/abs/2311.17136) calls score
fusion of a CLIP; SK-VQA's retrieval is such a one. Similarities of an image with a text and of two texts lie in other
ranges of values, so by default each is brought to the same range of a question first (CombSUM, Fox & Shaw 1994).
Reciprocal rank fusion (Cormack et al. 2009, https://doi.org/10.1145/1571941.1572114) looks at ranks alone.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float64, Int

from vlm_jax.errors import InputError

CHANNELS = ("image_to_image", "image_to_text", "text_to_text", "text_to_image")
"""Of the question, to the passage."""
NORMALISATIONS = ("minmax", "zscore", "none")
METHODS = ("weighted", "rrf")
CONSTANT = 60
"""Of reciprocal rank fusion, as its authors have it."""


def normalised(scores: Float[np.ndarray, " n"], how: str = "minmax") -> Float64[np.ndarray, " n"]:
    """The scores of one question in one channel, brought to the range that all channels have.

    Args:
      scores: NaN where a passage has none (no image): that is the lowest there is.
      how: minmax: (s - min) / (max - min), 0 where all are equal; zscore: (s - mean) / deviation, likewise; none.

    Raises:
      InputError: another way.
    """
    if how not in NORMALISATIONS:
        raise InputError(f"normalise is {how!r}; known are {', '.join(NORMALISATIONS)}")
    known = np.asarray(scores, np.float64)
    there = ~np.isnan(known)
    if not there.any():
        return np.zeros(len(known))
    low, high = known[there].min(), known[there].max()
    if how == "minmax":
        known = (known - low) / (high - low) if high > low else np.where(there, 0.0, np.nan)
    elif how == "zscore":
        mean, deviation = known[there].mean(), known[there].std()
        known = (known - mean) / deviation if deviation > 0 else np.where(there, 0.0, np.nan)
    return np.where(there, known, known[there].min())


def weighted(
    scores: Mapping[str, Float[np.ndarray, " n"]], weights: Mapping[str, float], how: str = "minmax"
) -> Float64[np.ndarray, " n"]:
    """Σ weight · normalised score, of one question and n passages."""
    parts = [weights[channel] * normalised(values, how) for channel, values in scores.items()]
    return np.sum(parts, axis=0)


def reciprocal_rank(
    rankings: Mapping[str, Int[np.ndarray, " m"]],
    weights: Mapping[str, float],
    passages: Int[np.ndarray, " n"],
    constant: int = CONSTANT,
) -> Float64[np.ndarray, " n"]:
    """Σ weight / (constant + rank), ranks from 1, of those of these passages that a channel found.

    Args:
      rankings: by channel, passages in the order in which it found them.
    """
    place = {int(passage): number for number, passage in enumerate(passages)}
    total = np.zeros(len(passages))
    for channel, ranking in rankings.items():
        for rank, passage in enumerate(ranking, 1):
            total[place[int(passage)]] += weights[channel] / (constant + rank)
    return total


def order_of(fused: Float[np.ndarray, " n"], passages: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """These passages, the best first; equal ones in the order of the index."""
    return passages[np.lexsort((passages, -fused))]


def checked_weights(weights: Mapping[str, float | int]) -> dict[str, float]:
    """Weights of the channels that are looked at: those of weight 0 are not.

    Raises:
      InputError: a channel that is not known, a weight below 0 or that is no number, or none above 0.
    """
    errors = [
        f"weights name {name!r}; the channels are {', '.join(CHANNELS)}" for name in weights if name not in CHANNELS
    ]
    for name, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < float("inf"):
            errors.append(f"the weight of {name} is {weight!r}; wanted a number from 0")
    chosen = {name: float(weights[name]) for name in CHANNELS if not errors and weights.get(name, 0) > 0}
    if not chosen and not errors:
        errors = [f"no channel has a weight above 0; the channels are {', '.join(CHANNELS)}"]
    if errors:
        raise InputError(errors)
    return chosen
