"""The vision tower of Qwen3-VL, its merger and those of DeepStack (arXiv:2406.04334).

Every block sees whole images. Positions are learned for a square and stretched over each image's grid; the rotary ones
are Qwen2-VL's. Features of some blocks go to the decoder beside the last ones.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, UInt8

from vlm_jax.models.attention import attention, attention_received
from vlm_jax.models.layers import MLP, LayerNorm, Linear, constrain_rows
from vlm_jax.models.patch_embed import PatchEmbed
from vlm_jax.models.qwen3_vl.shapes import VisionConfig
from vlm_jax.models.remat import PROJECTION, kept
from vlm_jax.models.rope import axial_angles, rotate, turn
from vlm_jax.models.stack import Stack

gelu_tanh = functools.partial(jax.nn.gelu, approximate=True)


class LearnedPositions(nnx.Module):
    """A square of positions, read between its places where an image's grid has other sides (bilinear, corners on
    corners)."""

    def __init__(self, config: VisionConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.side = config.position_side
        self.table = nnx.Param(std * jax.random.normal(rngs.params(), (config.position_rows, config.hidden), dtype))

    def __call__(self, coords: Int[Array, "b p 2"], image_ids: Int[Array, "b p"], dtype) -> Float[Array, "b p d"]:
        """Summed in float32, as transformers does."""
        last = jax.vmap(_last_coords)(coords, image_ids)  # of each patch's image
        source = coords.astype(jnp.float32) * (self.side - 1) / jnp.maximum(last, 1).astype(jnp.float32)
        low = jnp.clip(jnp.floor(source).astype(jnp.int32), 0, self.side - 1)
        high = jnp.minimum(low + 1, self.side - 1)
        share = source - low
        total = jnp.zeros((), jnp.float32)
        for row, row_share in ((low[..., 0], 1 - share[..., 0]), (high[..., 0], share[..., 0])):
            for column, column_share in ((low[..., 1], 1 - share[..., 1]), (high[..., 1], share[..., 1])):
                taken = self.table[...][row * self.side + column].astype(jnp.float32)
                total = total + taken * (row_share * column_share)[..., None]
        return total.astype(dtype)


def _last_coords(coords: Int[Array, "p 2"], image_ids: Int[Array, " p"]) -> Int[Array, "p 2"]:
    """Of each patch, the row and the column of the last patch of its image."""
    return jax.ops.segment_max(coords, image_ids, len(image_ids) + 1)[image_ids]


class VisionBlock(nnx.Module):
    def __init__(self, config: VisionConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.heads = config.heads
        self.norm1, self.norm2 = (LayerNorm(config.hidden, eps=config.norm_eps, dtype=dtype) for _ in range(2))
        self.qkv = Linear(config.hidden, 3 * config.hidden, bias=True, std=std, dtype=dtype, rngs=rngs)
        self.proj = Linear(config.hidden, config.hidden, bias=True, std=std, dtype=dtype, rngs=rngs)
        self.mlp = MLP(config.hidden, config.mlp, activation=gelu_tanh, std=std, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b p d"], cos, sin, mix):
        """`mix(q, k, v) -> (mixed, y)` sees rotated heads; y is handed through."""
        # Split, not indexed: then the gradients are put side by side, not padded with zeros and added up.
        together = kept(self.qkv(self.norm1(x)), PROJECTION)
        q, k, v = (part.reshape(*x.shape[:2], self.heads, -1) for part in jnp.split(together, 3, axis=-1))
        mixed, y = mix(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = constrain_rows(x + kept(self.proj(mixed.reshape(x.shape)), PROJECTION))
        return constrain_rows(x + self.mlp(self.norm2(x))), y


class DeepMerger(nnx.Module):
    """Of a block's output: four neighbouring patches side by side, norm, Linear, exact GELU, Linear."""

    def __init__(self, config: VisionConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.patches_per_token = config.patches_per_token
        wide = config.hidden * config.patches_per_token
        self.norm = LayerNorm(wide, eps=config.norm_eps, dtype=dtype)
        self.fc1 = Linear(wide, wide, bias=True, std=std, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(wide, config.out_hidden, bias=True, std=std, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b p d"]) -> Float[Array, "b u out"]:
        x = self.norm(x.reshape(x.shape[0], x.shape[1] // self.patches_per_token, -1))
        return constrain_rows(self.fc2(jax.nn.gelu(self.fc1(x), approximate=False)))


class Merger(nnx.Module):
    """Norm, four neighbouring patches side by side, Linear, exact GELU, Linear into the decoder's width; and a
    `DeepMerger` for each block of `VisionConfig.deepstack`."""

    def __init__(self, config: VisionConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.patches_per_token = config.patches_per_token
        wide, make = config.hidden * config.patches_per_token, {"std": std, "dtype": dtype}
        self.norm = LayerNorm(config.hidden, eps=config.norm_eps, dtype=dtype)
        self.fc1 = Linear(wide, wide, bias=True, rngs=rngs, **make)
        self.fc2 = Linear(wide, config.out_hidden, bias=True, rngs=rngs, **make)
        count = len(config.deepstack)
        self.deep = nnx.data(Stack(lambda rngs: DeepMerger(config, rngs=rngs, **make), count, rngs) if count else None)

    def __call__(
        self, features: tuple[Float[Array, "b p d"], Float[Array, "k b p d"]]
    ) -> tuple[Float[Array, "b u out"], Float[Array, "k b u out"] | None]:
        """Of the last block's features, and of DeepStack's."""
        x, taken = features
        x = self.norm(x).reshape(x.shape[0], x.shape[1] // self.patches_per_token, -1)
        visual = constrain_rows(self.fc2(jax.nn.gelu(self.fc1(x), approximate=False)))
        if self.deep is None:
            return visual, None
        return visual, self.deep((), lambda merger, carry, x, _: (carry, merger(x)), xs=taken)[1]


class VisionTower(nnx.Module):
    def __init__(self, config: VisionConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.config = config
        make = {"std": std, "dtype": dtype}
        self.patch_embed = PatchEmbed(config, bias=True, rngs=rngs, **make)
        self.positions = LearnedPositions(config, rngs=rngs, **make)
        self.blocks = Stack(lambda rngs: VisionBlock(config, rngs=rngs, **make), config.depth, rngs)

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
    ) -> tuple[tuple[Float[Array, "b p d"], Float[Array, "k b p d"]], Float32[Array, "b u"] | None]:
        """As `qwen_vl.tower.VisionTower`; features are those of the last block and those of DeepStack."""
        config, count = self.config, len(self.config.deepstack)
        cos, sin = turn(axial_angles(coords, config.head_dim, config.rope_theta), at_once=unroll)

        def whole_image(q, k, v):
            return attention(q, k, v, image_ids, image_ids, causal=False, implementation=implementation), None

        def observed_image(q, k, v):
            return whole_image(q, k, v)[0], attention_received(*jax.lax.stop_gradient((q, k)), image_ids)

        def apply(block, carry, place_of_output, _, mix=whole_image):
            x, taken = carry
            x, y = block(x, cos, sin, mix)
            # Written where it is kept; what is not, in a last place that nobody reads: in place, one block at a time.
            taken = jax.lax.dynamic_update_index_in_dim(taken, x, place_of_output, axis=0) if count else taken
            return (x, taken), y

        x = constrain_rows(self.patch_embed(patches, dtype) + self.positions(coords, image_ids, dtype))
        taken = jnp.zeros((count + 1 if count else 0, *x.shape), x.dtype)
        places = [
            config.deepstack.index(block) if block in config.deepstack else count for block in range(config.depth)
        ]
        options = {"xs": jnp.asarray(places, jnp.int32), "remat": remat, "unroll": unroll}
        if not importance:
            (x, taken), _ = self.blocks((x, taken), apply, **options)
            return (x, taken[:count]), None
        if config.depth > 1:
            (x, taken), _ = self.blocks((x, taken), apply, stop=config.depth - 1, **options)
        observe = functools.partial(apply, mix=observed_image)
        (x, taken), received = self.blocks((x, taken), observe, start=config.depth - 1, **options)
        received = received[0]
        return (x, taken[:count]), received.reshape(len(received), -1, config.patches_per_token).mean(axis=-1)
