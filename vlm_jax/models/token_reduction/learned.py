"""What methods of token reduction learn: parameters of the model beside its tower, connector and decoder.

A choice has no gradient. So what is kept is multiplied by one plus its score less its score, which is one, but whose
gradient is that of the score: a token that should count for more raises what is scored like it.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.token_reduction.candidates import Candidates


class Scorer(nnx.Module):
    """How much each visual token matters, linear in its embedding. It begins with all alike."""

    def __init__(self, width: int, dtype):
        self.weight = nnx.Param(jnp.zeros(width, dtype))

    def __call__(self, visual: Float[Array, "*b n d"]) -> Float32[Array, "*b n"]:
        return jnp.sum(visual.astype(jnp.float32) * self.weight[...].astype(jnp.float32), axis=-1)


def gated(visual: Float[Array, "*b n d"], scores: Float32[Array, "*b n"]) -> Float[Array, "*b n d"]:
    """The tokens as they are, with a gradient for their scores."""
    gate = 1 + (scores - jax.lax.stop_gradient(scores))
    return visual * gate[..., None].astype(visual.dtype)


class Shuffle(nnx.Module):
    """A block of tokens as one: its four quarters side by side, and a projection of that. It begins as their mean."""

    def __init__(self, width: int, dtype):
        self.kernel = nnx.Param(initial("reducer/kernel", (4, width, width)).astype(dtype))

    def __call__(self, candidates: Candidates, visual: Float[Array, "n d"], most: int) -> Float[Array, "n d"]:
        """Every token as what its block becomes; one in a block of its own, or in none, as it is.

        Args:
          most: blocks at most, numbered from 1. A quarter of several tokens is their mean, one of none the block's.
        """
        block, kind = candidates.image, visual.dtype
        visual32, ones = visual.astype(jnp.float32), candidates.there.astype(jnp.float32)

        def means(number, count):
            total = jax.ops.segment_sum(visual32 * ones[:, None], number, count)
            members = jax.ops.segment_sum(ones, number, count)
            return total / jnp.maximum(members, 1)[:, None], members

        whole, members = means(block, most + 1)
        quarters, there = means(4 * block + candidates.quadrant, 4 * (most + 1))
        quarters = quarters.reshape(most + 1, 4, -1)
        quarters = jnp.where(there.reshape(most + 1, 4, 1) > 0, quarters, whole[:, None])
        kernel = self.kernel[...].astype(kind)
        made = jnp.einsum("bqd,qde->be", quarters.astype(kind), kernel, preferred_element_type=jnp.float32)
        return jnp.where((candidates.there & (members[block] > 1))[:, None], made.astype(kind)[block], visual)


LEARNED: dict[str, type] = {"mmr_learned": Scorer, "pool_learned": Shuffle}
"""By method."""
PREFIX = "reducer/"
"""Of the paths of their parameters."""


def initial(path: str, shape: tuple[int, ...]) -> Float32[Array, "..."]:
    """What a parameter of theirs begins with."""
    if path == f"{PREFIX}kernel":
        return jnp.broadcast_to(jnp.eye(shape[-1], dtype=jnp.float32) / shape[0], shape)
    return jnp.zeros(shape, jnp.float32)


def with_parameters(config: VLMConfig, method: str) -> VLMConfig:
    """The shapes of a model that has what a method learns, and nothing that another one learned."""
    return dataclasses.replace(config, reducer=method if method in LEARNED else "")
