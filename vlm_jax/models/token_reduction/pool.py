"""Pooling: every block of neighbouring tokens becomes their mean, which stands where the token at its centre stood.

Which block a token is of follows from the grid (`processing.pooling`): for a method that pools, a block stands in the
place of an image, and its centre is what it keeps.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlm_jax.models.token_reduction.candidates import Candidates


def choose(candidates: Candidates) -> Bool[Array, " n"]:
    """Which tokens stay: the centres."""
    return candidates.there & (candidates.keep > 0)


def merge(candidates: Candidates, visual: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Every token as the mean of its block; one in a block of its own as it is, to the bit."""
    block = candidates.image
    total = jax.ops.segment_sum(visual.astype(jnp.float32), block, len(block) + 1)[block]
    count = jax.ops.segment_sum(jnp.ones(len(block)), block, len(block) + 1)[block]
    mean = (total / jnp.maximum(count, 1)[:, None]).astype(visual.dtype)
    return jnp.where((candidates.there & (count > 1))[:, None], mean, visual)
