"""CLIP and SigLIP, both halves: images and texts as vectors of one space.

The tower and its layers are those of assembled models (`models.llava.tower`); here is what they lack: the text half,
and what makes one vector of many hidden states. What a text becomes in tokens and an image in patches was worked out on
the host. Vectors are as the model has them, of any length.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from vlm_jax.models.attention import attend
from vlm_jax.models.contrastive.shapes import ContrastiveConfig, TextConfig
from vlm_jax.models.layers import MLP, LayerNorm, Linear, product
from vlm_jax.models.llava.shapes import EncoderConfig
from vlm_jax.models.llava.tower import ACTIVATIONS, EncoderBlock, EncoderTower
from vlm_jax.models.stack import Stack


class TextTower(nnx.Module):
    """Tokens → hidden states, after the last norm."""

    def __init__(self, config: TextConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.config = config

        def table(rows: int) -> nnx.Param:
            return nnx.Param(std * jax.random.normal(rngs.params(), (rows, config.hidden), dtype))

        self.embedding, self.positions = table(config.vocab), table(config.length)
        self.blocks = Stack(lambda rngs: EncoderBlock(config, std=std, dtype=dtype, rngs=rngs), config.depth, rngs)
        self.norm = LayerNorm(config.hidden, eps=config.norm_eps, dtype=dtype)

    def __call__(self, tokens: Int[Array, "b t"], seen: Bool[Array, "b t"], *, dtype) -> Float[Array, "b t d"]:
        """Args:
        seen: tokens that others look at.
        """
        length = tokens.shape[1]
        x = self.embedding[...].at[tokens].get(mode="clip").astype(dtype) + self.positions[...][:length].astype(dtype)
        visible = jnp.broadcast_to(seen[:, None, None, :], (len(tokens), 1, length, length))
        if self.config.causal:
            visible &= jnp.tril(jnp.ones((length, length), bool))
        x, _ = self.blocks(x, lambda block, x, _, place: block(x, visible=visible))
        return self.norm(x)


class AttentionPool(nnx.Module):
    """SigLIP's head: a learned query looks at all patches, and goes through an MLP (Zhai et al. 2022, "MAP")."""

    def __init__(self, config: EncoderConfig, *, std: float, dtype, rngs: nnx.Rngs):
        make = {"std": std, "dtype": dtype, "rngs": rngs}
        self.heads = config.heads
        self.probe = nnx.Param(std * jax.random.normal(rngs.params(), (config.hidden,), dtype))
        self.in_proj = Linear(config.hidden, 3 * config.hidden, bias=True, **make)
        self.out_proj = Linear(config.hidden, config.hidden, bias=True, **make)
        self.norm = LayerNorm(config.hidden, eps=config.norm_eps, dtype=dtype)
        self.mlp = MLP(config.hidden, config.mlp, activation=ACTIVATIONS[config.activation], **make)

    def __call__(self, x: Float[Array, "b p d"]) -> Float[Array, "b d"]:
        kernel, bias, width = self.in_proj.kernel[...], self.in_proj.bias[...].astype(x.dtype), x.shape[-1]

        def heads(y):
            return y.reshape(*y.shape[:-1], self.heads, width // self.heads)

        q = product(self.probe[...].astype(x.dtype)[None], kernel[:, :width]) + bias[:width]
        q = jnp.broadcast_to(heads(q), (len(x), 1, self.heads, width // self.heads))
        k, v = jnp.split(product(x, kernel[:, width:]) + bias[width:], 2, axis=-1)
        x = self.out_proj(attend(q, heads(k), heads(v), None).reshape(len(x), width))
        return x + self.mlp(self.norm(x))


class ContrastiveEncoder(nnx.Module):
    """Images and texts as vectors [b, d]. A pair's logit is their cosine · exp(logit_scale) + logit_bias (SigLIP's)."""

    def __init__(self, config: ContrastiveConfig, *, dtype=jnp.float32, rngs: nnx.Rngs, std: float = 0.02):
        make = {"std": std, "dtype": dtype, "rngs": rngs}
        self.config, clip = config, config.variant == "clip"
        self.vision, self.text = EncoderTower(config.vision, **make), TextTower(config.text, **make)
        self.pool = None if clip else AttentionPool(config.vision, **make)
        self.image_projection = Linear(config.vision.hidden, config.dimension, bias=False, **make) if clip else None
        self.text_projection = Linear(config.text.hidden, config.dimension, bias=not clip, **make)
        self.logit_scale = nnx.Param(jnp.zeros(() if clip else (1,), dtype))
        self.logit_bias = None if clip else nnx.Param(jnp.zeros((1,), dtype))

    def images(self, patches: UInt8[Array, "b p v"], *, dtype=jnp.float32) -> Float[Array, "b d"]:
        """Args:
        patches: a view a row, with a slot before the patches where the encoder has a class token.
        """
        ids = jnp.zeros(patches.shape[:2], jnp.int32)
        x, _ = self.vision(patches, jnp.stack([ids, ids], axis=-1), ids, ids, dtype=dtype)
        return self.image_projection(x[:, 0]) if self.pool is None else self.pool(x)

    def texts(self, tokens: Int[Array, "b t"], seen: Bool[Array, "b t"], *, dtype=jnp.float32) -> Float[Array, "b d"]:
        x = self.text(tokens, seen, dtype=dtype)
        if self.config.variant == "siglip":
            return self.text_projection(x[:, -1])  # may be padding: it was trained so
        end = self.config.text.end_token
        at = jnp.argmax(tokens if end is None else tokens == end, axis=1)
        return self.text_projection(x[jnp.arange(len(x)), at])
