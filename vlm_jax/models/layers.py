"""The layers every part of the model is made of; `stack` runs them one after another.

Parameters keep their own dtype; every product runs in the dtype of its input, so the compute dtype is decided once,
where pixels and token embeddings enter.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from vlm_jax.models.config import TowerConfig
from vlm_jax.models.remat import MLP as MLP_KEPT
from vlm_jax.models.remat import kept

ROW_AXES = ("data", "fsdp")
"""Axes of the mesh that the rows of a batch are divided over."""


def constrain_rows(x: Float[Array, " b *rest"]) -> Float[Array, " b *rest"]:
    """The same values, each row whole on the devices whose row it is; without a mesh (`jax.set_mesh`) nothing is done.

    The compiler works out the rest from this. Left to itself it gave every device a slice of the width of all rows of
    the tower, since that is how the kernels lie.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(ROW_AXES, *[None] * (x.ndim - 1)))


def normalised(config: TowerConfig, patches: UInt8[Array, "b p v"]) -> Float[Array, "b p v"]:
    """Pixels as the tower was trained on them, float32."""

    def per_value(per_channel):
        return jnp.repeat(jnp.asarray(per_channel, jnp.float32), config.patch_size**2)

    pixels = patches.astype(jnp.float32) * jnp.float32(1 / 255)
    return (pixels - per_value(config.pixel_mean)) / per_value(config.pixel_std)


def product(x: Float[Array, "*b i"], kernel: Float[Array, "i o"], **options) -> Float[Array, "*b o"]:
    """`x @ kernel`, in the dtype of x, with every axis but the last as one.

    The same to an accelerator. On CPUs XLA lays out the gradient of a kernel anew, element by element, where it has to
    sum over more than one axis, and takes twice the time.
    """
    flat = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel.astype(x.dtype), **options)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


class Linear(nnx.Module):
    """`x @ kernel + bias` with kernel [in, out].

    `vlm_jax.adapters` may replace the kernel by a module that computes the product, and add one beside it.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool, std: float, dtype, rngs: nnx.Rngs):
        self.kernel = nnx.data(nnx.Param(std * jax.random.normal(rngs.params(), (in_features, out_features), dtype)))
        self.bias = nnx.Param(jnp.zeros((out_features,), dtype)) if bias else None
        self.adapter = nnx.data(None)

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        y = self.kernel(x) if isinstance(self.kernel, nnx.Module) else product(x, self.kernel[...])
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)
        return y if self.adapter is None else y + self.adapter(x)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """[…, in, out], with a leading axis in a stack."""
        return self.kernel.shape if isinstance(self.kernel, nnx.Module) else tuple(self.kernel.get_value().shape)


class RMSNorm(nnx.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019), statistics in float32."""

    def __init__(self, features: int, *, eps: float, dtype):
        self.scale = nnx.Param(jnp.ones((features,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        return self.scale[...].astype(x.dtype) * wide.astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm (Ba et al. 2016), statistics in float32."""

    def __init__(self, features: int, *, eps: float, dtype):
        self.scale = nnx.Param(jnp.ones((features,), dtype))
        self.bias = nnx.Param(jnp.zeros((features,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        wide = x.astype(jnp.float32)
        wide = wide - wide.mean(axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        wide = wide * self.scale[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)
        return wide.astype(x.dtype)


class MLP(nnx.Module):
    """`fc2(activation(fc1(x)))`."""

    def __init__(self, hidden: int, mlp: int, *, activation: Callable, std: float, dtype, rngs: nnx.Rngs):
        self.fc1 = Linear(hidden, mlp, bias=True, std=std, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(mlp, hidden, bias=True, std=std, dtype=dtype, rngs=rngs)
        self.activation = activation

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.fc2(self.activation(kept(self.fc1(x), MLP_KEPT)))


def quick_gelu(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """CLIP's approximation of GELU: x · σ(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


@jax.custom_vjp
def gated(gate: Float[Array, "*b d"], up: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """silu(gate) · up, which keeps nothing but the two for its gradient."""
    return jax.nn.silu(gate) * up


def _gated_forward(gate, up):
    return gated(gate, up), (gate, up)


def _gated_backward(residuals, gradient):
    gate, up = residuals
    share = jax.nn.sigmoid(gate)
    silu = gate * share
    return gradient * up * (share + silu * (1 - share)), gradient * silu


gated.defvjp(_gated_forward, _gated_backward)


class GatedMLP(nnx.Module):
    """SwiGLU: `down(silu(gate(x)) * up(x))`."""

    def __init__(self, hidden: int, mlp: int, *, bias: bool, std: float, dtype, rngs: nnx.Rngs):
        self.gate_proj = Linear(hidden, mlp, bias=bias, std=std, dtype=dtype, rngs=rngs)
        self.up_proj = Linear(hidden, mlp, bias=bias, std=std, dtype=dtype, rngs=rngs)
        self.down_proj = Linear(mlp, hidden, bias=bias, std=std, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.down_proj(gated(kept(self.gate_proj(x), MLP_KEPT), kept(self.up_proj(x), MLP_KEPT)))


def picked(x: Float[Array, "b t d"], at: Int[Array, "b n"]) -> Float[Array, "b n d"]:
    """The places `at` of each row."""
    return jnp.take_along_axis(x, at[..., None], axis=1)
