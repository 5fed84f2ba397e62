"""CDPruner (arXiv:2506.10967): tokens that are diverse, given the question: MAP inference of a determinantal process.

The kernel is relevance · cosine · relevance, where relevance is the mean cosine to the question's embeddings, scaled to
between 0 and 1 within an image. Greedy by the incremental Cholesky factor of Chen et al. (arXiv:1709.05135): always the
token that adds most to the determinant.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from vlm_jax.models.token_reduction.candidates import Candidates, cosine, greedy, scaled

_LEAST_RELEVANT = 1e-6
_SPANNED = 1e-4
"""Of its own diagonal: a token that adds less lies in the span of those that are kept, by float32, and adds 0."""


def choose(candidates: Candidates, *, most: int) -> Bool[Array, " n"]:
    """Which tokens stay.

    Args:
      most: tokens that any image keeps, at most: rows of the factor.
    """
    embeddings = candidates.embeddings
    relevance = jnp.maximum(scaled(candidates, cosine(embeddings, candidates.query)), _LEAST_RELEVANT)
    diagonal = relevance * relevance * cosine(embeddings, embeddings)

    def update(state, best, number):
        left, factor = state
        row = relevance * cosine(embeddings, embeddings[best]) * relevance[best]
        row -= jnp.sum(factor * factor[:, best], axis=0)
        gain = left[best]
        row = jnp.where(gain > 0, row / jnp.sqrt(jnp.where(gain > 0, gain, 1)), 0)
        left = left - row * row
        left = jnp.where(left > _SPANNED * diagonal, left, 0)
        return left, factor.at[number].set(row)

    factor = jnp.zeros((most, len(diagonal)), jnp.float32)
    return greedy(candidates, (diagonal, factor), lambda state: state[0], update)
