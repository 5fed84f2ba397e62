"""DivPrune (arXiv:2503.02175): the tokens that are as far apart as may be.

Greedy max–min of 1 − cosine: always the token whose nearest kept one is farthest away; first that whose nearest
neighbour of all is.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from vlm_jax.models.token_reduction.candidates import Candidates, cosine, greedy

_CHUNK = 256
"""Tokens that are compared with all others at one time."""


def choose(candidates: Candidates) -> Bool[Array, " n"]:
    """Which tokens stay."""
    embeddings = candidates.embeddings

    def update(similar, best, number):
        # What was known of the seed (its nearest neighbour) is no similarity to a kept token.
        now = cosine(embeddings, embeddings[best])
        return jnp.where(number == 0, now, jnp.maximum(similar, now))

    return greedy(candidates, _nearest(candidates), lambda similar: 1 - similar, update)


def _nearest(candidates: Candidates) -> Float32[Array, " n"]:
    """Of each token the cosine to its nearest neighbour in its image; -1 where it is alone.

    Matrix products say which one that is; the value is then computed pair by pair, since two tokens that are each
    other's neighbour must have the very same.
    """
    embeddings, image, n = candidates.embeddings, candidates.image, len(candidates.image)
    place = jnp.arange(n)

    def neighbour(chunk):
        rows = chunk + jnp.arange(min(_CHUNK, n))
        products = jnp.matmul(embeddings[rows], embeddings.T, precision="high")
        hidden = (image[rows][:, None] != image) | (rows[:, None] == place)
        products = jnp.where(hidden, -jnp.inf, products)
        return jnp.argmax(products, axis=1), jnp.all(hidden, axis=1)

    starts = jnp.minimum(jnp.arange(0, n, _CHUNK), max(n - _CHUNK, 0))  # the last chunk overlaps the one before
    found, alone = jax.lax.map(neighbour, starts)
    rows = (starts[:, None] + jnp.arange(found.shape[1])).ravel()
    nearest = jnp.zeros(n, jnp.int32).at[rows].set(found.ravel().astype(jnp.int32))
    single = jnp.zeros(n, bool).at[rows].set(alone.ravel())
    return jnp.where(single, -1.0, cosine(embeddings, embeddings[nearest]))
