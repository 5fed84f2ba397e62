"""Attention block by block without ever holding the scores (Dao et al. 2022), in plain XLA: made for CPUs.

Blocks of keys that no query of a block may see are not computed at all, so the cost of a packed row follows the lengths
of its segments, not the square of its own. The backward pass computes the scores again from the log of the softmax's
sum; nothing of size queries × keys outlives a block, which on a CPU also spares the page faults of fresh memory.

Scores have a column for each query: maxima and sums run down columns, which XLA vectorises on CPUs, and no
product in a loop has to turn what it is given.

Ids above 0 must not fall along a row (`vlm_jax.processing.rows`). What padding gets is finite, and means nothing.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vlm_jax.models.remat import ATTENTION, kept

BLOCK = 64
"""Queries or keys of a block, at most: small enough to leave out most of what is hidden, large enough for a product."""
MASKED = -1e30


def blockwise_attention(
    q: Float[Array, "b t heads d"],
    k: Float[Array, "b s kv_heads d"],
    v: Float[Array, "b s kv_heads d"],
    q_segments: Int[Array, "b t"],
    kv_segments: Int[Array, "b s"],
    causal: bool,
) -> Float[Array, "b t heads d"]:
    """As `attention.attention`."""
    (b, t, heads, d), (s, kv_heads) = q.shape, k.shape[1:3]
    groups = heads // kv_heads
    # As many blocks as BLOCK asks for, and no more padding than it takes to make them equal.
    count = -(-max(t, s) // BLOCK)
    block = -(-max(t, s) // (16 * count)) * 16

    def blocks(x):
        """[b, n, kv · g, d] as [blocks, b, kv, d, g · block]."""
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0), (0, 0)))
        x = x.reshape(b, -1, block, kv_heads, x.shape[2] // kv_heads, d)
        return x.transpose(1, 0, 3, 5, 4, 2).reshape(x.shape[1], b, kv_heads, d, -1)

    def ids(segments):
        return jnp.moveaxis(jnp.pad(segments, ((0, 0), (0, -segments.shape[1] % block))).reshape(b, -1, block), 1, 0)

    q_ids = jnp.tile(ids(q_segments), groups)  # an id for each column
    out = _blockwise(causal, blocks(q * d**-0.5), blocks(k), blocks(v), q_ids, ids(kv_segments))
    out = out.reshape(-1, b, kv_heads, d, groups, block).transpose(1, 0, 5, 2, 4, 3)
    return out.reshape(b, -1, heads, d)[:, :t]


def _ranges(q_ids: Int[Array, "n b columns"], kv_ids: Int[Array, "m b block"], causal: bool):
    """From which block of keys to before which each block of queries has to look, over all rows."""

    def ends(ids):
        return jnp.where(ids > 0, ids, jnp.iinfo(ids.dtype).max).min(axis=-1), ids.max(axis=-1)

    (q_low, q_high), (kv_low, kv_high) = ends(q_ids), ends(kv_ids)
    sees = ((q_low[:, None] <= kv_high) & (kv_low <= q_high[:, None])).any(axis=-1)  # [n, m]
    if causal:
        sees &= jnp.arange(sees.shape[0])[:, None] >= jnp.arange(sees.shape[1])
    low, high = jnp.argmax(sees, axis=1), sees.shape[1] - jnp.argmax(sees[:, ::-1], axis=1)
    return low, jnp.where(sees.any(axis=1), high, low)


def _product(left, right):
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)


def _scores(k, q, kv_ids, q_ids, other, number, causal: bool):
    """[b, kv, block, g · block] of a block of keys [b, kv, block, d] and one of scaled queries [b, kv, d, g · block];
    hidden ones are `MASKED`."""
    visible = kv_ids[:, :, None] == q_ids[:, None, :]
    if causal:
        block = kv_ids.shape[-1]
        place = jnp.arange(block)
        visible &= (other * block + place)[:, None] <= number * block + jnp.tile(place, q_ids.shape[-1] // block)
    return jnp.where(visible[:, None], _product(k, q), MASKED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blockwise(causal, q, k, v, q_ids, kv_ids):
    """q [n, b, kv, d, g · block]; k, v [m, b, kv, d, block]; q_ids [n, b, g · block]; kv_ids [m, b, block]."""
    return _forward(causal, q, k, v, q_ids, kv_ids)[0]


def _forward(causal, q, k, v, q_ids, kv_ids):
    low, high = _ranges(q_ids, kv_ids, causal)
    keys = jnp.swapaxes(k, -1, -2)

    def one(block):
        number, low, high, q, q_ids = block

        def look(other, carry):
            mixed, top, total = carry
            scores = _scores(keys[other], q, kv_ids[other], q_ids, other, number, causal)
            higher = jnp.maximum(top, scores.max(axis=-2, keepdims=True))
            weights = jnp.exp(scores - higher)
            keep = jnp.exp(top - higher)
            mixed = mixed * keep + _product(v[other], weights.astype(v.dtype))
            return mixed, higher, total * keep + weights.sum(axis=-2, keepdims=True)

        empty = jnp.zeros((*q.shape[:-2], 1, q.shape[-1]), jnp.float32)
        mixed, top, total = jax.lax.fori_loop(low, high, look, (jnp.zeros(q.shape, jnp.float32), empty + MASKED, empty))
        total = jnp.where(total == 0, 1, total)
        return (mixed / total).astype(v.dtype), top + jnp.log(total)

    out, logs = jax.lax.map(one, (jnp.arange(len(q)), low, high, q, q_ids))
    out, logs = kept(out, ATTENTION), kept(logs, ATTENTION)
    return out, (q, k, v, q_ids, kv_ids, out, logs)


def _backward(causal, residuals, gradient):
    q, k, v, q_ids, kv_ids, out, logs = residuals
    low, high = _ranges(q_ids, kv_ids, causal)
    # Each of them stands on both sides of a product.
    keys, values, queries, gradients = (jnp.swapaxes(x, -1, -2) for x in (k, v, q, gradient))
    # What the gradient of the softmax's sum takes from each score's own.
    common = jnp.sum(gradient.astype(jnp.float32) * out.astype(jnp.float32), axis=-2, keepdims=True)

    def one(carry, block):
        number, low, high, q, queries, q_ids, logs, common, gradient, gradients = block

        def look(other, carry):
            dq, dk, dv = carry
            weights = jnp.exp(_scores(keys[other], q, kv_ids[other], q_ids, other, number, causal) - logs)
            change = (weights * (_product(values[other], gradient) - common)).astype(q.dtype)
            weights = weights.astype(v.dtype)
            dk, dv = dk.at[other].add(_product(change, queries)), dv.at[other].add(_product(weights, gradients))
            return dq + _product(k[other], change), dk, dv

        dq, *carry = jax.lax.fori_loop(low, high, look, (jnp.zeros(q.shape, jnp.float32), *carry))
        return tuple(carry), dq.astype(q.dtype)

    empty = jnp.zeros(keys.shape, jnp.float32)
    blocks = (jnp.arange(len(q)), low, high, q, queries, q_ids, logs, common, gradient, gradients)
    (dk, dv), dq = jax.lax.scan(one, (empty, empty), blocks)
    dk, dv = jnp.swapaxes(dk, -1, -2), jnp.swapaxes(dv, -1, -2)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), None, None


_blockwise.defvjp(_forward, _backward)
