"""The output layer of a training step, divided by vocabulary over the devices of a mesh.

Where parameters are divided over `fsdp`, the table of the output layer would be gathered for every chunk of positions,
and its gradient summed over all devices for every chunk: for 152,000 words, far more than the positions are. Each
device takes a part of the words instead, of all positions: the table changes its division once (an all-to-all), and
what goes between devices is hidden states, and a few numbers a position.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from vlm_jax.models.layers import product

WORDS = ("tensor", "fsdp")
"""Axes of the mesh that words are divided over."""


def divides(vocabulary: int, rows: int, positions: int) -> bool:
    """Whether the words are divided for so many positions of each row: fewer values are sent then.

    Hidden states of all rows go three ways (gathered, and their gradients summed), a table there and back.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp"] == 1:
        return False
    ways = mesh.shape["fsdp"] * mesh.shape["tensor"]
    rows_together = rows // mesh.shape["data"]
    return (
        rows % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0
        and vocabulary % ways == 0
        and 2 * rows_together * positions <= vocabulary
    )


def as_it_lies(table: Float[Array, "v d"]) -> Float[Array, "v d"]:
    """A table of embeddings, and its gradient, as parameters are divided, where tokens are looked up in it. One that
    is the output layer too would have its gradient divided by words there as well, and all rows gathered for that."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or any(size % mesh.shape[axis] for size, axis in zip(table.shape, WORDS, strict=True)):
        return table
    return jax.lax.with_sharding_constraint(table, PartitionSpec(*WORDS))


def divided(table: Float[Array, "v d"], *, dtype) -> Callable:
    """Hidden states [rows, n, d] → float32 logits [rows, n, v], with the words of `table` divided over the mesh.

    Args:
      dtype: that logits are computed in.
    """
    # Its gradient goes back to where the table lies at once: else the optimizer would be divided both ways.
    table = jax.lax.with_sharding_constraint(as_it_lies(table), PartitionSpec(WORDS, None))

    def logits(hidden: Float[Array, "b n d"]) -> Float[Array, "b n v"]:
        hidden = jax.lax.with_sharding_constraint(hidden, PartitionSpec("data", None, None))
        found = product(hidden, table.astype(dtype).T, preferred_element_type=jnp.float32)
        return jax.lax.with_sharding_constraint(found, PartitionSpec("data", None, WORDS))

    return logits
