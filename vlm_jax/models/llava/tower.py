"""Image encoders of fixed resolution (CLIP, SigLIP, ViT) as the tower of an assembled model, and its connectors.

A view takes `block_slots` slots of a row: a class token's, where the family has one, then its patches row by row. So
attention is one batched dense product over whole views, and positions need no look-up. Which tokens take which slot,
and how an image becomes views, was worked out on the host (`vlm_jax.processing.image_processors`).
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, UInt8

from vlm_jax.models.attention import attend, attention_received
from vlm_jax.models.contrastive.shapes import TextConfig
from vlm_jax.models.layers import MLP, LayerNorm, Linear, constrain_rows, normalised, product, quick_gelu
from vlm_jax.models.llava.shapes import EncoderConfig
from vlm_jax.models.remat import ATTENTION, PROJECTION, kept
from vlm_jax.models.stack import Stack

ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
}


class PatchProjection(nnx.Module):
    """The strided Conv2d as one product over flattened patches."""

    def __init__(self, config: EncoderConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.config = config
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), (config.patch_dim, config.hidden), dtype))
        self.bias = None if config.variant == "clip" else nnx.Param(jnp.zeros((config.hidden,), dtype))

    def __call__(self, patches: UInt8[Array, "b p v"], dtype) -> Float[Array, "b p d"]:
        x = product(normalised(self.config, patches).astype(dtype), self.kernel[...])
        return x if self.bias is None else x + self.bias[...].astype(dtype)


class EncoderAttention(nnx.Module):
    def __init__(self, config: EncoderConfig | TextConfig, **make):
        self.heads = config.heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, Linear(config.hidden, config.hidden, bias=True, **make))

    def __call__(self, x: Float[Array, "b p d"], slots: int, observe=None, visible: Array | None = None):
        """`observe(q, k)`, [b, views, slots, heads, head_dim] each, is handed through; `visible` is `attend`'s."""

        def views(y):
            return y.reshape(y.shape[0], -1, slots, self.heads, y.shape[-1] // self.heads)

        q, k, v = (views(kept(linear(x), PROJECTION)) for linear in (self.q_proj, self.k_proj, self.v_proj))
        mixed = kept(attend(q, k, v, visible), ATTENTION)
        y = kept(self.out_proj(mixed.reshape(x.shape)), PROJECTION)
        return y, None if observe is None else observe(q, k)


class EncoderBlock(nnx.Module):
    """A layer of a tower, or of the text half beside it (`models.contrastive`), which has the same."""

    def __init__(self, config: EncoderConfig | TextConfig, *, std: float, dtype, rngs: nnx.Rngs):
        make = {"std": std, "dtype": dtype, "rngs": rngs}
        self.slots = config.block_slots
        self.norm1 = LayerNorm(config.hidden, eps=config.norm_eps, dtype=dtype)
        self.norm2 = LayerNorm(config.hidden, eps=config.norm_eps, dtype=dtype)
        self.attention = EncoderAttention(config, **make)
        self.mlp = MLP(config.hidden, config.mlp, activation=ACTIVATIONS[config.activation], **make)

    def __call__(self, x: Float[Array, "b p d"], observe=None, visible: Array | None = None):
        # Without views (a text) a row is one.
        mixed, y = self.attention(self.norm1(x), self.slots or x.shape[1], observe, visible)
        x = constrain_rows(x + mixed)
        return constrain_rows(x + self.mlp(self.norm2(x))), y


def unused_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """{name: shape} of what a checkpoint holds behind the features and no token ever sees, as its file has it."""
    hidden, mlp = config.hidden, config.mlp
    shapes: dict[str, tuple[int, ...]] = {}
    if not config.final_norm:
        shapes |= {"norm_scale": (hidden,), "norm_bias": (hidden,)}
    if config.pooler and config.variant == "vit":
        shapes |= {"pooler_weight": (hidden, hidden), "pooler_bias": (hidden,)}
    if config.pooler and config.variant == "siglip":
        shapes |= {
            "probe": (1, 1, hidden),
            "in_weight": (3 * hidden, hidden),
            "in_bias": (3 * hidden,),
            "out_weight": (hidden, hidden),
            "out_bias": (hidden,),
            "layernorm_weight": (hidden,),
            "layernorm_bias": (hidden,),
            "fc1_weight": (mlp, hidden),
            "fc1_bias": (mlp,),
            "fc2_weight": (hidden, mlp),
            "fc2_bias": (hidden,),
        }
    return shapes


class Unused(nnx.Module):
    """What comes with an encoder's weights and has no part in the features: carried along, so that nothing is lost."""

    def __init__(self, config: EncoderConfig, **make):
        if config.unused_layers:
            self.blocks = Stack(
                lambda rngs: EncoderBlock(config, **{**make, "rngs": rngs}), config.unused_layers, make["rngs"]
            )
        for name, shape in unused_shapes(config).items():
            setattr(self, name, nnx.Param(jnp.zeros(shape, make["dtype"])))


class EncoderTower(nnx.Module):
    def __init__(self, config: EncoderConfig, *, std: float, dtype, rngs: nnx.Rngs):
        make = {"std": std, "dtype": dtype, "rngs": rngs}
        self.config = config
        self.patch_embed = PatchProjection(config, **make)

        def embedding(*shape: int) -> nnx.Param:
            return nnx.Param(std * jax.random.normal(rngs.params(), shape, dtype))

        self.class_token = embedding(config.hidden) if config.class_slots else None
        self.positions = embedding(config.block_slots, config.hidden)

        def norm() -> LayerNorm:
            return LayerNorm(config.hidden, eps=config.norm_eps, dtype=dtype)

        self.pre_norm = norm() if config.variant == "clip" else None
        self.blocks = Stack(lambda rngs: EncoderBlock(config, std=std, dtype=dtype, rngs=rngs), config.depth, rngs)
        self.norm = norm() if config.final_norm else None
        if config.unused_layers or unused_shapes(config):
            self.unused = Unused(config, **make)

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
    ) -> tuple[Float[Array, "b p d"], Float32[Array, "b p"] | None]:
        """Features of every slot, and with `importance` the attention that each receives in its view in the last layer.
        Those of empty views mean nothing, and no token takes them.

        Args are `VisionTower`'s. Here views lie at whole multiples of `block_slots`, so the ids say nothing more.
        """
        config = self.config
        x = self.patch_embed(patches, dtype)
        x = x.reshape(x.shape[0], -1, config.block_slots, config.hidden)
        if self.class_token is not None:
            first = jnp.broadcast_to(self.class_token[...].astype(dtype), (*x.shape[:2], 1, config.hidden))
            x = jnp.concatenate([first, x[:, :, 1:]], axis=2)
        x = (x + self.positions[...].astype(dtype)).reshape(*patches.shape[:2], config.hidden)
        x = constrain_rows(x)
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        last, received = config.depth - 1 if importance else config.depth, None
        options = {"remat": remat, "unroll": unroll}
        if last:
            x, _ = self.blocks(x, lambda block, x, _, place: block(x), stop=last, **options)
        if importance:

            def observe(q, k):
                q, k = (y.reshape(-1, *y.shape[2:]) for y in jax.lax.stop_gradient((q, k)))
                return attention_received(q, k, jnp.ones(q.shape[:2], jnp.int32)).reshape(image_ids.shape)

            x, received = self.blocks(x, lambda block, x, _, place: block(x, observe), start=last, **options)
            received = received[0]
        return (x if self.norm is None else self.norm(x)), received


class Projector(nnx.Module):
    """Features into the decoder's width: Linear, exact GELU, Linear (LLaVA-1.5)."""

    def __init__(self, config: EncoderConfig, *, std: float, dtype, rngs: nnx.Rngs):
        make = {"bias": True, "std": std, "dtype": dtype, "rngs": rngs}
        self.fc1 = Linear(config.hidden, config.out_hidden, **make)
        self.fc2 = Linear(config.out_hidden, config.out_hidden, **make)

    def __call__(self, x: Float[Array, "b p d"]) -> Float[Array, "b p out"]:
        return constrain_rows(self.fc2(jax.nn.gelu(self.fc1(x), approximate=False)))


class LinearProjector(nnx.Module):
    """Features into the decoder's width: one linear layer (LLaVA)."""

    def __init__(self, config: EncoderConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.proj = Linear(config.hidden, config.out_hidden, bias=True, std=std, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b p d"]) -> Float[Array, "b p out"]:
        return constrain_rows(self.proj(x))
