"""Next-token cross-entropy on supervised positions only, without ever holding the full logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlm_jax.models.vlm import Batch

CHUNK = 256
"""Supervised positions of a row whose logits exist at one time, at most: 256 × 152k in float32 are 155 MB a row."""
_EVEN = 8
"""A chunk is a multiple of it, as TPUs lay out arrays."""


def cross_entropy(
    head: Callable, hidden: Float[Array, "b t d"], batch: Batch
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(Σ weight · −log p(target), Σ weight) over the batch's supervised positions.

    `head` maps [..., d] to float32 logits [..., vocab]. Positions go through it in chunks, rematerialised in the
    backward pass.
    """
    index, targets, weights = batch["loss_index"], batch["loss_targets"], batch["loss_weights"]
    picked = jnp.take_along_axis(hidden, index[..., None], axis=1)
    # As many chunks as CHUNK asks for, and no more padding than it takes to make them equal.
    count = -(-index.shape[1] // CHUNK)
    width = -(-index.shape[1] // (_EVEN * count)) * _EVEN
    pad = -index.shape[1] % width

    def chunks(x):
        x = jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, width, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def one(total, chunk):
        hidden, targets, weights = chunk
        logits = head(hidden)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return total + jnp.sum(weights * (jax.nn.logsumexp(logits, axis=-1) - chosen)), None

    total, _ = jax.lax.scan(one, jnp.float32(0), (chunks(picked), chunks(targets), chunks(weights)))
    return total, jnp.sum(weights)
