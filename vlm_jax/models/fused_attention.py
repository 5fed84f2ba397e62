"""Attention that never holds the score matrix: a kernel on TPUs, one on GPUs, and blocks in plain XLA on CPUs.

None of them can be divided by the compiler, so on a mesh each device runs its own rows and heads inside `shard_map`;
the mesh is the one set by `jax.set_mesh`. What they compute is `attention.attention`'s, which decides what is taken.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from vlm_jax.models.blockwise import blockwise_attention
from vlm_jax.models.remat import ATTENTION, kept

LANES = 128
"""For splash and triton rows are filled up to a multiple of this, and their blocks are multiples of it."""


def fused(
    kind: str,
    q: Float[Array, "b t heads d"],
    k: Float[Array, "b t kv_heads d"],
    v: Float[Array, "b t kv_heads d"],
    segments: Int[Array, "b t"],
    *,
    causal: bool,
    interpret: bool = False,
) -> Float[Array, "b t heads d"]:
    """`kind`: a key of `KERNELS`. `interpret` runs a kernel without its hardware, slowly."""
    kernel = functools.partial(KERNELS[kind], causal=causal, interpret=interpret)
    length = q.shape[1]
    filling = 0 if kind == "blockwise" else -length % LANES  # it fills its own blocks

    def filled(x):
        return jnp.pad(x, ((0, 0), (0, filling)) + ((0, 0),) * (x.ndim - 2))

    args = tuple(filled(x) for x in (q, k, v, segments))
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        # Without a split of the key-value heads a tensor axis has every head on each of its devices.
        split = "tensor" if k.shape[2] % mesh.shape["tensor"] == 0 else None
        rows = ("data", "fsdp")
        if q.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
            rows = None  # fewer rows than devices: each computes all
        heads = PartitionSpec(rows, None, split, None)
        kernel = jax.shard_map(
            kernel,
            in_specs=(heads, heads, heads, PartitionSpec(rows, None)),
            out_specs=heads,
            check_vma=False,  # a kernel says nothing of what varies over the mesh
        )
    return kernel(*args)[:, :length]


def _splash(q, k, v, segments, *, causal: bool, interpret: bool):
    """Splash attention, on one device. Scores and softmax are float32."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads = q.shape[1:3]
    mask = splash.CausalMask((length, length)) if causal else splash.FullMask((length, length))
    block = next(size for size in (512, 384, 256, LANES) if length % size == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=sizes,
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )
    scaled = (q * q.shape[-1] ** -0.5).astype(q.dtype)
    by_head = (jnp.swapaxes(x, 1, 2) for x in (scaled, k, v))
    mixed = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, segment_ids=splash.SegmentIds(ids, ids)))(*by_head, segments)
    return jnp.swapaxes(mixed, 1, 2)


def _triton(q, k, v, segments, *, causal: bool, interpret: bool):
    """JAX's Triton kernel, on one device. It knows no grouped queries: key-value heads are repeated for theirs."""
    from jax.experimental.pallas.ops.gpu.attention import mha

    groups = q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, groups, axis=2), jnp.repeat(v, groups, axis=2)
    # What its backward pass needs besides is not named: with a policy that recomputes anything, this runs twice.
    return kept(mha(q, k, v, segments, q.shape[-1] ** -0.5, causal, interpret=interpret), ATTENTION)


def _blockwise(q, k, v, segments, *, causal: bool, interpret: bool):
    return blockwise_attention(q, k, v, segments, segments, causal)


KERNELS = {"blockwise": _blockwise, "splash": _splash, "triton": _triton}
