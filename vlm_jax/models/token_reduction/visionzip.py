"""VisionZip (arXiv:2412.04467): the tokens that receive most attention stay, the others are merged into a few.

Of the tokens that an image keeps, 54 of 64 are dominant, as published: those of the highest importance. The rest are
contextual: of the tokens that are left, evenly spaced ones take in those that are most like them, as their mean.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from vlm_jax.models.token_reduction.candidates import Candidates, top

DOMINANT, OF = 54, 64


def dominant_count(keep):
    """How many of `keep` tokens stay for their importance; one at least."""
    return (keep * DOMINANT + OF - 1) // OF


def choose(candidates: Candidates) -> Bool[Array, " n"]:
    """Which tokens stay: dominant ones, and those that others are merged into."""
    return _dominant_and_targets(candidates)[1]


def merge(candidates: Candidates, visual: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """The tokens, those that others are merged into being the mean of themselves and of them."""
    dominant, kept = _dominant_and_targets(candidates)
    targets = kept & ~dominant
    into = _most_similar(candidates, targets)
    mine = targets | (~kept & candidates.there & (into >= 0))
    into = jnp.where(targets, jnp.arange(len(into)), jnp.maximum(into, 0))
    weights = mine.astype(jnp.float32)
    total = jnp.zeros(visual.shape, jnp.float32).at[into].add(visual.astype(jnp.float32) * weights[:, None])
    count = jnp.zeros(len(into), jnp.float32).at[into].add(weights)
    merged = total / jnp.maximum(count, 1)[:, None]
    # A target that takes nothing in is left as it is, to the bit.
    return jnp.where((targets & (count > 1))[:, None], merged.astype(visual.dtype), visual)


def _dominant_and_targets(candidates: Candidates) -> tuple[Bool[Array, " n"], Bool[Array, " n"]]:
    dominant_keep = dominant_count(candidates.keep)
    dominant = top(dataclasses.replace(candidates, keep=dominant_keep), candidates.importance)
    rest = candidates.there & ~dominant
    # The i-th of the m tokens that are left is a target where i · c / m reaches a whole number: c of them, even.
    ones = rest.astype(jnp.int32)
    place = jnp.cumsum(ones) - ones
    first = jax.ops.segment_min(jnp.where(rest, place, len(place)), candidates.image, len(place) + 1)[candidates.image]
    left = jax.ops.segment_sum(ones, candidates.image, len(place) + 1)[candidates.image]
    place, contextual = place - first, candidates.keep - dominant_keep
    # In whole numbers: -(-i · c // m) counts the targets before i.
    before = (place * contextual + left - 1) // jnp.maximum(left, 1)
    after = ((place + 1) * contextual + left - 1) // jnp.maximum(left, 1)
    return dominant, dominant | (rest & (after > before))


def _most_similar(candidates: Candidates, targets: Bool[Array, " n"]) -> Int32[Array, " n"]:
    """Of each token the target of its image that is most like it, of equal ones the first; -1 where there is none."""
    embeddings, image = candidates.embeddings, candidates.image

    def one(args):
        embedding, mine = args
        visible = targets & (image == mine)
        scores = jnp.where(visible, embeddings @ embedding, -jnp.inf)
        return jnp.where(visible.any(), jnp.argmax(scores), -1).astype(jnp.int32)

    return jax.lax.map(one, (embeddings, image), batch_size=256)
