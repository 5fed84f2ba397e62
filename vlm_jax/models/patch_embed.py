"""Patches of pixels to features, as the towers of Qwen-VL models begin."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from vlm_jax.models.config import TowerConfig
from vlm_jax.models.layers import normalised, product


class PatchEmbed(nnx.Module):
    """A strided Conv3d as one product over flattened patches.

    A still image fills both temporal slices with the same pixels, so their kernels are added before the product:
    half the work, and each slice stays a parameter of its own.
    """

    def __init__(self, config: TowerConfig, *, bias: bool = False, std: float, dtype, rngs: nnx.Rngs):
        self.config = config
        shape = (config.temporal_patch_size, config.patch_dim, config.hidden)
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), shape, dtype))
        self.bias = nnx.Param(jnp.zeros((config.hidden,), dtype)) if bias else None

    def __call__(self, patches: UInt8[Array, "b p v"], dtype) -> Float[Array, "b p d"]:
        y = product(normalised(self.config, patches).astype(dtype), self.kernel[...].sum(axis=0))
        return y if self.bias is None else y + self.bias[...].astype(dtype)
