"""Frozen kernels in 4 or 8 bits (QLoRA, Dettmers et al. 2023).

`nf4`: blocks of 64 values along the input, each scaled by its largest magnitude, as the nearest of 16 levels that are
quantiles of a normal distribution. `int8`: one scale an output, 255 levels. A product dequantises its kernel on the way
and keeps nothing of it: the backward pass dequantises again.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from vlm_jax.models.layers import Linear
from vlm_jax.models.vlm import VLM

KINDS = ("nf4", "int8")
BLOCK = 64
NF4 = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
"""The 16 levels of NormalFloat4 (Dettmers et al. 2023, appendix E)."""


class QuantisedKernel(nnx.Module):
    """Codes [in, out] and scales [in / block, out] in the place of a kernel."""

    def __init__(self, shape: tuple[int, ...], kind: str):
        self.kind = kind
        self.codes = nnx.Param(jax.ShapeDtypeStruct(shape, jnp.int4 if kind == "nf4" else jnp.int8))
        self.scales = nnx.Param(jax.ShapeDtypeStruct(scales_shape(shape, kind), jnp.float32))

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        return _product(self.kind, x, self.codes[...], self.scales[...])


def scales_shape(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    *lead, features_in, features_out = shape
    return (*lead, -(-features_in // BLOCK) if kind == "nf4" else 1, features_out)


def attach(model: VLM, kind: str) -> list[str]:
    """Quantises the linear layers of a model of shapes; the paths of the kernels that were replaced."""
    paths = []
    for path, part in nnx.iter_modules(model):
        if isinstance(part, Linear):
            part.kernel = QuantisedKernel(part.kernel_shape, kind)
            paths.append("/".join(map(str, (*path, "kernel"))))
    return paths


def quantise(kernel: Float[Array, "*lead i o"], kind: str) -> tuple[Int[Array, "*lead i o"], Float[Array, "*lead n o"]]:
    """Codes and scales of a kernel. Run it under jit, a layer at a time: it takes many times its memory."""
    wide = kernel.astype(jnp.float32)
    if kind == "int8":
        scales = jnp.max(jnp.abs(wide), axis=-2, keepdims=True) / 127
        codes = jnp.round(wide / jnp.where(scales == 0, 1, scales)).astype(jnp.int8)
        return codes, scales
    blocks = _blocks(wide)
    scales = jnp.max(jnp.abs(blocks), axis=-2)
    unit = blocks / jnp.where(scales == 0, 1, scales)[..., None, :]
    # The nearest level: how many of the 15 borders between levels lie below.
    borders = (NF4[1:] + NF4[:-1]) / 2
    codes = sum((unit > border).astype(jnp.int8) for border in borders.tolist()) - 8
    codes = codes.reshape(*codes.shape[:-3], -1, codes.shape[-1])[..., : kernel.shape[-2], :]
    return codes.astype(jnp.int4), scales


def dequantise(codes: Int[Array, "*lead i o"], scales: Float[Array, "*lead n o"], kind: str, dtype=jnp.float32):
    """The kernel that codes and scales stand for."""
    if kind == "int8":
        return (codes.astype(jnp.float32) * scales).astype(dtype)
    blocks = _blocks(_levels(codes.astype(jnp.int8) + 8))
    wide = blocks * scales[..., None, :]
    return wide.reshape(*wide.shape[:-3], -1, wide.shape[-1])[..., : codes.shape[-2], :].astype(dtype)


def _blocks(x: Array) -> Array:
    """[…, in, out] as […, n, BLOCK, out], the last block filled with zeros."""
    *lead, features_in, features_out = x.shape
    x = jnp.pad(x, [(0, 0)] * len(lead) + [(0, -features_in % BLOCK), (0, 0)])
    return x.reshape(*lead, -1, BLOCK, features_out)


def _levels(codes: Array) -> Float[Array, "..."]:
    """Level of each code 0 … 15, by a tree of choices: a gather from a table makes large temporaries on a TPU."""

    def choose(low: int, count: int):
        if count == 1:
            return jnp.float32(NF4[low])
        half = count // 2
        return jnp.where((codes & half) != 0, choose(low + half, half), choose(low, half))

    return choose(0, 16)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(kind: str, x, codes, scales):
    return x @ dequantise(codes, scales, kind, x.dtype)


def _forward(kind, x, codes, scales):
    # Only what is packed is kept: a saving remat policy would otherwise keep every layer's dequantised kernel.
    return _product(kind, x, codes, scales), (codes, scales)


def _backward(kind, kept, gradient):
    codes, scales = kept
    kernel = dequantise(codes, scales, kind, gradient.dtype)
    return gradient @ kernel.T, np.zeros(codes.shape, jax.dtypes.float0), jnp.zeros_like(scales)


_product.defvjp(_forward, _backward)
