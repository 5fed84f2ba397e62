"""Attention block by block without ever holding the scores (Dao et al. 2022), in plain XLA: made for CPUs.

Blocks of keys that no query of a block may see are not computed at all, so the cost of a packed row follows the lengths
of its segments, not the square of its own. The backward pass computes the scores again from the log of the softmax's
sum; nothing of size queries × keys outlives a block, which on a CPU also spares the page faults of fresh memory.

Ids above 0 must not fall along a row (`vlm_jax.processing.rows`). What padding gets is finite, and means nothing.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

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
    # As many blocks as BLOCK asks for, and no more padding than it takes to make them equal.
    count = -(-max(t, s) // BLOCK)
    block = -(-max(t, s) // (16 * count)) * 16

    def blocks(x, kv):
        """[b, n, kv · g, d] as [blocks, b, kv, g · block, d]."""
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0), (0, 0)))
        x = x.reshape(b, -1, block, kv, x.shape[2] // kv, d)
        return x.transpose(1, 0, 3, 4, 2, 5).reshape(x.shape[1], b, kv, -1, d)

    def ids(segments):
        return jnp.moveaxis(jnp.pad(segments, ((0, 0), (0, -segments.shape[1] % block))).reshape(b, -1, block), 1, 0)

    q, k, v = blocks(q, kv_heads), blocks(k, kv_heads), blocks(v, kv_heads)
    out = _blockwise(causal, q, k, v, ids(q_segments), ids(kv_segments))
    out = out.reshape(-1, b, kv_heads, heads // kv_heads, block, d).transpose(1, 0, 4, 2, 3, 5)
    return out.reshape(b, -1, heads, d)[:, :t]


def _ranges(q_ids: Int[Array, "n b block"], kv_ids: Int[Array, "m b block"], causal: bool):
    """From which block of keys to before which each block of queries has to look, over all rows."""

    def ends(ids):
        return jnp.where(ids > 0, ids, jnp.iinfo(ids.dtype).max).min(axis=-1), ids.max(axis=-1)

    (q_low, q_high), (kv_low, kv_high) = ends(q_ids), ends(kv_ids)
    sees = ((q_low[:, None] <= kv_high) & (kv_low <= q_high[:, None])).any(axis=-1)  # [n, m]
    if causal:
        sees &= jnp.arange(sees.shape[0])[:, None] >= jnp.arange(sees.shape[1])
    low, high = jnp.argmax(sees, axis=1), sees.shape[1] - jnp.argmax(sees[:, ::-1], axis=1)
    return low, jnp.where(sees.any(axis=1), high, low)


def _scores(q, k, q_ids, kv_ids, number, other, causal: bool):
    """Scaled scores [b, kv, g · block, block] of a block of queries with one of keys; hidden ones are `MASKED`."""
    scores = jnp.matmul(q, jnp.swapaxes(k, -1, -2), preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    visible = q_ids[:, :, None] == kv_ids[:, None, :]
    if causal:
        place = jnp.arange(q_ids.shape[-1])
        visible &= (number * len(place) + place)[:, None] >= other * len(place) + place
    grouped = scores.reshape(*scores.shape[:2], -1, *visible.shape[1:])
    return jnp.where(visible[:, None, None], grouped, MASKED).reshape(scores.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blockwise(causal, q, k, v, q_ids, kv_ids):
    return _forward(causal, q, k, v, q_ids, kv_ids)[0]


def _forward(causal, q, k, v, q_ids, kv_ids):
    low, high = _ranges(q_ids, kv_ids, causal)

    def one(given):
        number, low, high, q, q_ids = given

        def look(other, carry):
            mixed, top, total = carry
            scores = _scores(q, k[other], q_ids, kv_ids[other], number, other, causal)
            higher = jnp.maximum(top, scores.max(axis=-1, keepdims=True))
            weights = jnp.exp(scores - higher)
            keep = jnp.exp(top - higher)
            mixed = mixed * keep + jnp.matmul(weights.astype(v.dtype), v[other], preferred_element_type=jnp.float32)
            return mixed, higher, total * keep + weights.sum(axis=-1, keepdims=True)

        empty = jnp.zeros((*q.shape[:-1], 1), jnp.float32)
        mixed, top, total = jax.lax.fori_loop(low, high, look, (jnp.zeros(q.shape, jnp.float32), empty + MASKED, empty))
        total = jnp.where(total == 0, 1, total)
        return (mixed / total).astype(v.dtype), top + jnp.log(total)

    out, logs = jax.lax.map(one, (jnp.arange(len(q)), low, high, q, q_ids))
    return out, (q, k, v, q_ids, kv_ids, out, logs)


def _backward(causal, kept, gradient):
    q, k, v, q_ids, kv_ids, out, logs = kept
    low, high = _ranges(q_ids, kv_ids, causal)

    def one(carry, given):
        number, low, high, q, q_ids, out, logs, gradient = given
        # What the gradient of the softmax's sum takes from each score's own.
        common = jnp.sum(gradient.astype(jnp.float32) * out.astype(jnp.float32), axis=-1, keepdims=True)

        def look(other, carry):
            dq, dk, dv = carry
            weights = jnp.exp(_scores(q, k[other], q_ids, kv_ids[other], number, other, causal) - logs)
            change = jnp.matmul(gradient, jnp.swapaxes(v[other], -1, -2), preferred_element_type=jnp.float32)
            change = (weights * (change - common) * q.shape[-1] ** -0.5).astype(q.dtype)
            weights = weights.astype(v.dtype)

            def add(total, left, right):
                product = jnp.matmul(jnp.swapaxes(left, -1, -2), right, preferred_element_type=jnp.float32)
                return total.at[other].add(product)

            dq = dq + jnp.matmul(change, k[other], preferred_element_type=jnp.float32)
            return dq, add(dk, change, q), add(dv, weights, gradient)

        dq, *carry = jax.lax.fori_loop(low, high, look, (jnp.zeros(q.shape, jnp.float32), *carry))
        return tuple(carry), dq.astype(q.dtype)

    empty = jnp.zeros(k.shape, jnp.float32)
    given = (jnp.arange(len(q)), low, high, q, q_ids, out, logs, gradient)
    (dk, dv), dq = jax.lax.scan(one, (empty, empty), given)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), None, None


_blockwise.defvjp(_forward, _backward)
