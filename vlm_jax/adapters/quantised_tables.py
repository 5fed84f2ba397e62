"""Token embeddings and the output layer in 8 bits, for models whose vocabulary is a large share of them.

One scale a token, its largest magnitude / 127: a value is off by at most 1/254 of the largest of its token, and so a
logit by at most 1/254 of that times the sum of the magnitudes of its hidden state. Linear layers are `quantised`'s.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from vlm_jax.adapters.quantised import quantise
from vlm_jax.deferred import aligned
from vlm_jax.models.layers import product
from vlm_jax.models.parameters import Flat
from vlm_jax.models.vlm import VLM

PATHS = ("embedding", "head")
TOKENS = 1 << 14
"""Tokens of a table that are quantised at one time."""


class QuantisedTable(nnx.Module):
    """Codes and scales in the place of a table [vocab, hidden], or of an output layer [hidden, vocab]."""

    def __init__(self, shape: tuple[int, int], token_axis: int):
        self.token_axis = token_axis
        self.codes = nnx.Param(jax.ShapeDtypeStruct(shape, jnp.int8))
        scales = tuple(size if axis == token_axis else 1 for axis, size in enumerate(shape))
        self.scales = nnx.Param(jax.ShapeDtypeStruct(scales, jnp.float32))

    def rows(self, tokens: Int[Array, "b t"], dtype: Any) -> Float[Array, "b t d"]:
        """Embeddings of tokens."""
        codes, scales = (leaf[...].at[tokens].get(mode="clip") for leaf in (self.codes, self.scales))
        return (codes.astype(jnp.float32) * scales).astype(dtype)

    def logits(self, hidden: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """float32 logits; the scales are multiplied in after the product."""
        kernel = self.codes[...].T if self.token_axis == 0 else self.codes[...]
        kernel = kernel.astype(hidden.dtype)  # whole numbers up to 127, which any of them holds
        return product(hidden, kernel, preferred_element_type=jnp.float32) * self.scales[...].reshape(-1)


def attach(model: VLM) -> None:
    """Quantises the tables of a model of shapes."""
    model.embedding = QuantisedTable(model.embedding.get_value().shape, 0)
    if model.head is not None:
        model.head = QuantisedTable(model.head.get_value().shape, 1)


def quantised(path: str, table: Any) -> Flat:
    """Codes and scales of the table at a path of `PATHS` by their paths, quantised on the device some tokens at a time.

    Args:
      table: an array, or one that is deferred.
    """
    axis = PATHS.index(path)
    scales = tuple(size if place == axis else 1 for place, size in enumerate(table.shape))
    arrays = {"codes": aligned(table.shape, np.dtype(np.int8)), "scales": aligned(scales, np.dtype(np.float32))}
    for start in range(0, table.shape[axis], TOKENS):
        one = (*[slice(None)] * axis, slice(start, start + TOKENS))
        for whole, part in zip(arrays.values(), _quantise(table[one], axis), strict=True):
            whole[one] = part
    return {f"{path}/{name}": jax.device_put(whole) for name, whole in arrays.items()}


def _by_token(table: Float[Array, "m n"], axis: int) -> tuple[Array, Array]:
    codes, scales = quantise(table.T if axis == 0 else table, "int8")  # one scale a column
    return (codes.T, scales.T) if axis == 0 else (codes, scales)


_quantise = jax.jit(_by_token, static_argnums=1)
