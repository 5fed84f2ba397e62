"""How near an answer is to the fact that it is made from: the cosine of two embeddings, which the pipeline asks for."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from data_pipeline.corpus.filters.pair import Pair
from vlm_jax.errors import InputError


def cosine(vectors: ArrayLike) -> float:
    """The cosine of two vectors, [2, d]; 0 where one of them is zero.

    Raises:
      InputError: another shape, or a value that is not finite.
    """
    pair = np.asarray(vectors, np.float64)
    if pair.ndim != 2 or len(pair) != 2 or not np.isfinite(pair).all():
        raise InputError(f"embeddings of answer and fact: wanted finite numbers of shape [2, d], not {pair.shape}")
    lengths = np.linalg.norm(pair, axis=1)
    return float(pair[0] @ pair[1] / (lengths[0] * lengths[1])) if lengths.all() else 0.0


def near_fact(pair: Pair, vectors: ArrayLike, *, threshold: float) -> str:
    """Why an answer is doubtful: the cosine of answer and fact, [2, d], is below the threshold. No fact: it passes."""
    near = cosine(vectors)
    return "" if near >= threshold else f"unlike its fact: cosine {near:.3f} below {threshold:g}"


def sweep(cosines: Iterable[float], thresholds: Sequence[float]) -> list[tuple[float, int, int]]:
    """(threshold, kept, dropped) for each threshold, for the report: what another one would have kept."""
    ordered = np.sort(np.fromiter(cosines, np.float64))
    dropped = np.searchsorted(ordered, np.asarray(thresholds, np.float64), side="left")
    return [(float(t), int(len(ordered) - n), int(n)) for t, n in zip(thresholds, dropped, strict=True)]
