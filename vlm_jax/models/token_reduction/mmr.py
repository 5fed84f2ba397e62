"""Maximal marginal relevance (Carbonell and Goldstein, 1998) over visual tokens: important, and unlike what is kept.

Greedy: always the token with the highest λ · importance − (1 − λ) · (largest cosine to a kept token).
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from vlm_jax.models.token_reduction.candidates import Candidates, cosine, greedy

LAMBDA = 0.5
"""What importance weighs against likeness."""


def choose(candidates: Candidates) -> Bool[Array, " n"]:
    """Which tokens stay."""
    embeddings, importance = candidates.embeddings, candidates.importance

    def score(similar):
        return LAMBDA * importance - (1 - LAMBDA) * similar

    def update(similar, best, number):
        now = cosine(embeddings, embeddings[best])
        return jnp.where(number == 0, now, jnp.maximum(similar, now))

    # Before anything is kept likeness counts for nothing.
    return greedy(candidates, jnp.zeros_like(importance), score, update)
