"""The vision towers of Qwen2.5-VL and Qwen2-VL, and their merger.

Patches arrive already ordered by window (`vlm_jax.processing.vision_layout`): slots come in blocks of one full
window; a block holds one whole window or several partial windows of one image, told apart by `window_ids`. So a
windowed layer is one batched dense product, no layer permutes anything, and the four patches of a visual token always
lie side by side, ready for the merger. The original order returns when tokens pick their visual embedding.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, UInt8

from vlm_jax.models.attention import attend, attention, attention_received
from vlm_jax.models.layers import (
    MLP,
    GatedMLP,
    LayerNorm,
    Linear,
    RMSNorm,
    constrain_rows,
    quick_gelu,
)
from vlm_jax.models.patch_embed import PatchEmbed
from vlm_jax.models.qwen_vl.shapes import VisionConfig
from vlm_jax.models.remat import ATTENTION, PROJECTION, kept
from vlm_jax.models.rope import axial_angles, rotate, turn
from vlm_jax.models.stack import Stack, repeating_period


def _norm(config: VisionConfig, dtype) -> nnx.Module:
    return (RMSNorm if config.variant == "qwen2_5_vl" else LayerNorm)(config.hidden, eps=config.norm_eps, dtype=dtype)


class VisionBlock(nnx.Module):
    def __init__(self, config: VisionConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.heads = config.heads
        self.norm1, self.norm2 = _norm(config, dtype), _norm(config, dtype)
        self.qkv = Linear(config.hidden, 3 * config.hidden, bias=True, std=std, dtype=dtype, rngs=rngs)
        self.proj = Linear(config.hidden, config.hidden, bias=True, std=std, dtype=dtype, rngs=rngs)
        make = {"std": std, "dtype": dtype, "rngs": rngs}
        if config.variant == "qwen2_5_vl":
            self.mlp = GatedMLP(config.hidden, config.mlp, bias=True, **make)
        else:
            self.mlp = MLP(config.hidden, config.mlp, activation=quick_gelu, **make)

    def __call__(self, x: Float[Array, "b p d"], cos, sin, mix):
        """`mix(q, k, v) -> (mixed, y)` sees rotated heads; y is handed through."""
        # Split, not indexed: then the gradients are put side by side, not padded with zeros and added up.
        together = kept(self.qkv(self.norm1(x)), PROJECTION)
        q, k, v = (part.reshape(*x.shape[:2], self.heads, -1) for part in jnp.split(together, 3, axis=-1))
        mixed, y = mix(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = constrain_rows(x + kept(self.proj(mixed.reshape(x.shape)), PROJECTION))
        return constrain_rows(x + self.mlp(self.norm2(x))), y


class Merger(nnx.Module):
    """Norm, four neighbouring patches side by side, Linear, exact GELU, Linear into the decoder's width."""

    def __init__(self, config: VisionConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.patches_per_token = config.patches_per_token
        wide = config.hidden * config.patches_per_token
        self.norm = _norm(config, dtype)
        self.fc1 = Linear(wide, wide, bias=True, std=std, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(wide, config.out_hidden, bias=True, std=std, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b p d"]) -> Float[Array, "b u out"]:
        x = self.norm(x).reshape(x.shape[0], x.shape[1] // self.patches_per_token, -1)
        return constrain_rows(self.fc2(jax.nn.gelu(self.fc1(x), approximate=False)))


class VisionTower(nnx.Module):
    def __init__(self, config: VisionConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.config = config
        self.patch_embed = PatchEmbed(config, std=std, dtype=dtype, rngs=rngs)

        def make(rngs):
            return VisionBlock(config, std=std, dtype=dtype, rngs=rngs)

        self.blocks = Stack(make, config.depth, rngs)

    def __call__(
        self,
        patches: UInt8[Array, "b p v"],
        coords: Int[Array, "b p 2"],
        image_ids: Int[Array, "b p"],
        window_ids: Int[Array, "b p"],
        *,
        dtype=jnp.float32,
        implementation: str = "chunked",
        remat: str = "none",
        unroll: bool = False,
        importance: bool = False,
    ) -> tuple[Float[Array, "b p d"], Float32[Array, "b u"] | None]:
        """Runs all blocks: features, and with `importance` the attention that each visual token receives in the last
        block that sees whole images, as the mean over its patches; None where none does.

        Args:
          patches: raw pixels, one temporal slice: values ordered C, ph, pw.
          coords: row and column of each patch in its image's grid.
          image_ids: which image of the row a slot belongs to, 0 for padding.
          window_ids: which window of its block a slot belongs to, 0 for padding.
        """
        config = self.config
        angles = axial_angles(coords, config.head_dim, config.rope_theta)
        cos, sin = turn(angles, at_once=unroll)

        def blocks(x):
            return x.reshape(x.shape[0], -1, config.block_slots, *x.shape[2:])

        same_window = blocks(window_ids)[..., :, None] == blocks(window_ids)[..., None, :]

        def windowed(q, k, v):
            return kept(attend(blocks(q), blocks(k), blocks(v), same_window), ATTENTION).reshape(q.shape), None

        def whole_image(q, k, v):
            return attention(q, k, v, image_ids, image_ids, causal=False, implementation=implementation), None

        def apply(block, x, _, place):
            return block(x, cos, sin, whole_image if place in config.global_blocks else windowed)

        period = repeating_period(config.depth, config.global_blocks)
        options = {"period": period, "remat": remat, "unroll": unroll}
        x = constrain_rows(self.patch_embed(patches, dtype))
        observed = max((place for place in range(period) if place in config.global_blocks), default=None)
        if not importance or observed is None:
            return self.blocks(x, apply, **options)[0], None

        def observed_image(q, k, v):
            return whole_image(q, k, v)[0], attention_received(*jax.lax.stop_gradient((q, k)), image_ids)

        def observe(block, x, _, place):
            if place == observed:
                return block(x, cos, sin, observed_image)
            return apply(block, x, None, place)[0], jnp.zeros(image_ids.shape, jnp.float32)

        if first := config.depth - period:
            x, _ = self.blocks(x, apply, stop=first, **options)
        x, received = self.blocks(x, observe, start=first, **options)
        received = received[observed]
        return x, received.reshape(len(received), -1, config.patches_per_token).mean(axis=-1)
