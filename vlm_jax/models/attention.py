"""Attention with segments: one function, several ways to compute it.

A query sees a key iff both carry the same segment id and, when causal, the key does not come later in the row.
Padding carries segment 0; it sees only padding, so every softmax row has something to normalise over.

Implementations (all agree with `reference` in tests):
  reference  the whole score matrix; for tests and short rows.
  chunked    queries in chunks, each rematerialised in the backward pass: memory O(chunk · T) instead of O(T²).
  blockwise  blocks of queries and keys, those of other segments left out, no scores kept: for CPUs (`blockwise`).
  splash     a TPU kernel that never holds scores, and skips what causality hides (`fused_attention`).
  triton     the like for GPUs.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from vlm_jax.errors import InputError
from vlm_jax.models.fused_attention import KERNELS, fused
from vlm_jax.models.remat import ATTENTION, kept

PLATFORMS = {"reference": None, "chunked": None, "blockwise": None, "splash": "tpu", "triton": "gpu"}
"""Where each implementation runs; None: everywhere."""
IMPLEMENTATIONS = tuple(PLATFORMS)
CHUNK = 256
"""Queries a chunk: 16 heads × 256 × 4,096 keys in float32 are 64 MB a row."""

MASKED = -1e30
"""Score of a hidden key: finite, so that rows without any key stay free of NaN."""

CACHED_SCORES = 1 << 22
"""Scores of a head, over all rows, that queries of a cache have at once: 16 heads take 256 MB in float32."""


def choose(name: str, platform: str) -> str:
    """The implementation for a platform (`cpu`, `gpu`, `tpu`): `auto` takes the fastest.

    Raises:
      InputError: the one that is asked for does not run there.
    """
    if name == "auto":
        return {"tpu": "splash", "gpu": "triton"}.get(platform, "blockwise")
    if PLATFORMS[name] not in (None, platform):
        raise InputError(
            f"model.attention {name!r} runs on a {PLATFORMS[name].upper()}, and this is a {platform.upper()}; take auto"
        )
    return name


def attention(
    q: Float[Array, "b t heads d"],
    k: Float[Array, "b s kv_heads d"],
    v: Float[Array, "b s kv_heads d"],
    q_segments: Int[Array, "b t"],
    kv_segments: Int[Array, "b s"],
    *,
    causal: bool,
    implementation: str = "chunked",
) -> Float[Array, "b t heads d"]:
    """Softmax attention within segments; query head h reads key-value head h // (heads / kv_heads).

    Scores and softmax are float32, the output has v's dtype. `causal` compares places in the row and wants t == s.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"unknown attention implementation {implementation!r}; known: {', '.join(IMPLEMENTATIONS)}")
    if implementation in KERNELS:
        # In a whole row queries and keys have the same segments.
        return fused(implementation, q, k, v, q_segments, causal=causal)
    length = q.shape[1]
    if implementation == "reference" or length <= CHUNK:
        return kept(_dense(q, k, v, q_segments, kv_segments, 0 if causal else None), ATTENTION)

    pad = -length % CHUNK
    chunks = (length + pad) // CHUNK

    def chunked(x):
        return jnp.moveaxis(
            jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2)).reshape(x.shape[0], chunks, CHUNK, *x.shape[2:]),
            1,
            0,
        )

    @jax.checkpoint
    def one(start, q, q_segments):
        return _dense(q, k, v, q_segments, kv_segments, start if causal else None)

    starts = jnp.arange(chunks) * CHUNK
    out = jax.lax.map(lambda args: one(*args), (starts, chunked(q), chunked(q_segments)))
    return kept(jnp.moveaxis(out, 0, 1).reshape(q.shape[0], length + pad, *q.shape[2:])[:, :length], ATTENTION)


def attend(
    q: Float[Array, "*b t heads d"],
    k: Float[Array, "*b s kv_heads d"],
    v: Float[Array, "*b s kv_heads d"],
    visible: Array | None,
) -> Float[Array, "*b t heads d"]:
    """Grouped-query attention under an explicit mask `visible` [*b, t, s] (True: may look; None: all may).

    The softmax is divided by its sum after the product with v, on [t, d] instead of [t, s] values: on a CPU its
    gradient takes half the time (`benchmarks/attention.py`).
    """
    lead, (t, heads, d), (s, kv_heads) = q.shape[:-3], q.shape[-3:], k.shape[-3:-1]
    groups = heads // kv_heads
    queries = jnp.swapaxes(q, -3, -2).reshape(*lead, kv_heads, groups * t, d)
    keys, values = jnp.moveaxis(k, -3, -1), jnp.swapaxes(v, -3, -2)  # [*b, kv_heads, d, s], [*b, kv_heads, s, d]
    scores = jnp.matmul(queries, keys, preferred_element_type=jnp.float32).reshape(*lead, kv_heads, groups, t, s)
    scores = scores * d**-0.5
    if visible is not None:
        scores = jnp.where(visible[..., None, None, :, :], scores, MASKED)
    # The shift cancels out; without a gradient of its own it costs nothing backwards.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    flat = weights.astype(v.dtype).reshape(*lead, kv_heads, groups * t, s)
    mixed = jnp.matmul(flat, values, preferred_element_type=jnp.float32).reshape(*lead, kv_heads, groups, t, d)
    return jnp.swapaxes((mixed / total).astype(v.dtype).reshape(*lead, heads, t, d), -3, -2)


def attention_received(
    q: Float[Array, "b t heads d"], k: Float[Array, "b t heads d"], segments: Int[Array, "b t"]
) -> Float32[Array, "b t"]:
    """What attention each place gets, as the mean over the heads and over the queries of its segment; 0 for padding.

    Queries come in chunks, so that no score matrix of a whole row is held.
    """
    length = q.shape[1]
    chunk = min(CHUNK, length)
    pad = -length % chunk
    k = k.astype(jnp.float32)

    def part(start):
        queries = jax.lax.dynamic_slice_in_dim(padded, start, chunk, axis=1)
        mine = jax.lax.dynamic_slice_in_dim(padded_segments, start, chunk, axis=1)
        visible = (mine[:, :, None] == segments[:, None, :]) & (mine[:, :, None] > 0)
        scores = jnp.einsum("bthd,bshd->bhts", queries, k) * q.shape[-1] ** -0.5
        scores = jnp.where(visible[:, None], scores, MASKED)
        weights = jnp.where(visible[:, None], jnp.exp(scores - scores.max(axis=-1, keepdims=True)), 0)
        total = weights.sum(axis=-1, keepdims=True)
        return (weights / jnp.where(total > 0, total, 1)).mean(axis=1).sum(axis=1)

    padded = jnp.pad(q.astype(jnp.float32), ((0, 0), (0, pad), (0, 0), (0, 0)))
    padded_segments = jnp.pad(segments, ((0, 0), (0, pad)))
    starts = jnp.arange(0, length + pad, chunk)
    received = jax.lax.scan(lambda sums, start: (sums + part(start), None), jnp.zeros(segments.shape), starts)[0]
    # A segment's number is no larger than the places there are.
    count = jax.vmap(lambda row: jax.ops.segment_sum(jnp.ones(row.shape), row, length + 1)[row])
    return received / count(segments)


def attend_cached(
    q: Float[Array, "b t heads d"],
    k: Float[Array, "b kv_heads s d"],
    v: Float[Array, "b kv_heads s d"],
    ends: Int[Array, "b t"],
) -> Float[Array, "b t heads d"]:
    """`attend` for keys and values that lie by head, as a cache holds them: nothing of its size is moved.

    Queries come in chunks where their scores would be many: a long text behind a long one has gigabytes of them.

    Args:
      ends: the last entry of the cache that each query sees.
    """
    b, t = ends.shape
    chunk = max(1, CACHED_SCORES // (b * k.shape[2]))
    if t <= chunk:
        return _attend_cached(q, k, v, ends)
    count = -(-t // chunk)
    chunk = -(-t // count)

    def chunked(x):
        x = jnp.pad(x, ((0, 0), (0, count * chunk - t)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(b, count, chunk, *x.shape[2:]), 1, 0)

    mixed = jax.lax.map(lambda part: _attend_cached(part[0], k, v, part[1]), (chunked(q), chunked(ends)))
    return jnp.moveaxis(mixed, 0, 1).reshape(b, count * chunk, *q.shape[2:])[:, :t]


def _attend_cached(q, k, v, ends):
    (b, t, heads, d), kv_heads = q.shape, k.shape[1]
    groups = heads // kv_heads
    visible = jnp.arange(k.shape[2]) <= ends[..., None]  # [b, t, s]
    queries = jnp.swapaxes(q, 1, 2).reshape(b, kv_heads, groups * t, d).astype(k.dtype)
    scores = jnp.matmul(queries, jnp.swapaxes(k, -1, -2), preferred_element_type=jnp.float32) * d**-0.5
    scores = jnp.where(visible[:, None, None], scores.reshape(b, kv_heads, groups, t, -1), MASKED)
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    total = weights.sum(axis=-1, keepdims=True)
    flat = weights.astype(v.dtype).reshape(b, kv_heads, groups * t, -1)
    mixed = jnp.matmul(flat, v, preferred_element_type=jnp.float32).reshape(b, kv_heads, groups, t, d)
    return jnp.swapaxes((mixed / total).astype(q.dtype).reshape(b, heads, t, d), 1, 2)


def _dense(q, k, v, q_segments, kv_segments, start):
    visible = q_segments[:, :, None] == kv_segments[:, None, :]
    if start is not None:
        visible &= (start + jnp.arange(q.shape[1]))[:, None] >= jnp.arange(k.shape[1])
    return attend(q, k, v, visible)
