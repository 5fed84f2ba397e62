"""Frozen kernels in 4 or 8 bits (QLoRA, Dettmers et al. 2023).

`nf4`: blocks of 64 values along the input, each scaled by its largest magnitude, as the nearest of 16 levels that are
quantiles of a normal distribution. `int8`: one scale an output, 255 levels. A product dequantises its kernel on the way
and keeps nothing of it: the backward pass dequantises again.
"""

import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vlm_jax.deferred import Deferred, aligned
from vlm_jax.models.parameters import Flat, linears
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


CODES = {"nf4": "nibbles", "int8": "codes"}
"""What the codes of a kernel are called: their shapes, and so their shardings, differ."""


class QuantisedKernel(nnx.Module):
    """Codes and scales in the place of a kernel [in, out].

    int8: codes [in, out], scales [1, out]. nf4: nibbles uint8 [in / 64, 32, out], the first half of each block in the
    low four bits and the second in the high (JAX's own int4 takes a byte on a CPU and cannot be passed to a program
    that was compiled ahead); scales [in / 64, out].
    """

    def __init__(self, shape: tuple[int, ...], kind: str):
        self.kind, self.shape = kind, shape
        codes, scales = quantised_shapes(shape, kind)
        dtype = jnp.uint8 if kind == "nf4" else jnp.int8
        setattr(self, CODES[kind], nnx.Param(jax.ShapeDtypeStruct(codes, dtype)))
        self.scales = nnx.Param(jax.ShapeDtypeStruct(scales, jnp.float32))

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        return _product(self.kind, x, getattr(self, CODES[self.kind])[...], self.scales[...])


def quantised_shapes(shape: tuple[int, ...], kind: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the codes and scales of a kernel."""
    *lead, features_in, features_out = shape
    if kind == "int8":
        return shape, (*lead, 1, features_out)
    blocks = -(-features_in // BLOCK)
    return (*lead, blocks, BLOCK // 2, features_out), (*lead, blocks, features_out)


def attach(model: VLM, kind: str, *, keep: Collection[str] = ()) -> None:
    """Quantises the linear layers of a model of shapes, but the kernels at the paths `keep`."""
    for path, linear in linears(model).items():
        if f"{path}/kernel" not in keep:
            linear.kernel = QuantisedKernel(linear.kernel_shape, kind)


def quantise(kernel: Float[Array, "*lead i o"], kind: str) -> tuple[Array, Array]:
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
    codes = sum((unit > border).astype(jnp.uint8) for border in borders.tolist())
    low, high = jnp.split(codes, 2, axis=-2)
    return low | (high << 4), scales


def quantised(path: str, kernel: Any, kind: str, shardings: Mapping | None = None) -> Flat:
    """Codes and scales of a kernel by their paths, quantised on the device a layer at a time.

    Args:
      kernel: [in, out] or [layers, in, out], an array of the devices; or, without `shardings`, one that is deferred, of
        which no more than a layer is ever in memory.
      shardings: {path: sharding} of the two.
    """
    names = (f"{path}/{CODES[kind]}", f"{path}/scales")
    if isinstance(kernel, Deferred):
        if kernel.ndim == 2:
            return dict(zip(names, _quantise(kernel[...], kind), strict=True))
        # The stacks are filled on the host: layers that wait on a device to be stacked leave its memory in pieces.
        for index in range(kernel.shape[0]):
            layer = _quantise(kernel[index], kind)
            if index == 0:
                stacks = [aligned((kernel.shape[0], *part.shape), part.dtype) for part in layer]
            for stack, part in zip(stacks, layer, strict=True):
                stack[index] = part
        return {name: jax.device_put(stack) for name, stack in zip(names, stacks, strict=True)}

    def by_layer(kernel):
        if kernel.ndim == 2:
            return quantise(kernel, kind)
        return jax.lax.map(lambda one: quantise(one, kind), kernel)

    where = None if shardings is None else tuple(shardings[name] for name in names)
    return dict(zip(names, jax.jit(by_layer, out_shardings=where)(kernel), strict=True))


_quantise = jax.jit(quantise, static_argnums=1)


def dequantise(
    codes: Array, scales: Array, kind: str, features_in: int, dtype=jnp.float32
) -> Float[Array, "*lead i o"]:
    """The kernel that codes and scales stand for."""
    if kind == "int8":
        return (codes.astype(jnp.float32) * scales).astype(dtype)
    blocks = jnp.concatenate([_levels(codes & 15), _levels(codes >> 4)], axis=-2) * scales[..., None, :]
    return blocks.reshape(*blocks.shape[:-3], -1, blocks.shape[-1])[..., :features_in, :].astype(dtype)


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
    return x @ dequantise(codes, scales, kind, x.shape[-1], x.dtype)


def _forward(kind, x, codes, scales):
    # Only what is quantised is kept: a saving remat policy would otherwise keep every layer's dequantised kernel.
    return _product(kind, x, codes, scales), (codes, scales, jnp.empty((0, x.shape[-1])))


def _backward(kind, residuals, gradient):
    codes, scales, like_x = residuals
    kernel = dequantise(codes, scales, kind, like_x.shape[-1], gradient.dtype)
    return gradient @ kernel.T, np.zeros(codes.shape, jax.dtypes.float0), jnp.zeros_like(scales)


_product.defvjp(_forward, _backward)
