"""The whole model: images and tokens in, hidden states and logits out.

One class for all families: they differ in their tower and connector (`families`), which take the same arrays.

What stands where (positions, which token takes which visual embedding, which slots are padding) was worked out on the
host by `vlm_jax.processing`; nothing here depends on the size of an image.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from vlm_jax.models import families, output_layer
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.decoder import Decoder
from vlm_jax.models.layers import constrain_rows, product
from vlm_jax.models.token_reduction.choice import Taken, reduced
from vlm_jax.models.token_reduction.in_decoder import Embedded, through_decoder
from vlm_jax.models.token_reduction.learned import LEARNED
from vlm_jax.models.token_reduction.methods import needs
from vlm_jax.processing.rows import ARRAYS, ROW_END, STATIC, Batch


def _static(batch: Batch) -> tuple:
    return tuple(getattr(batch, name) for name in STATIC)


jax.tree_util.register_pytree_with_keys(
    Batch,
    lambda batch: ([(jax.tree_util.GetAttrKey(name), getattr(batch, name)) for name in ARRAYS], _static(batch)),
    lambda static, leaves: Batch.unchecked(leaves, static),
    lambda batch: ([getattr(batch, name) for name in ARRAYS], _static(batch)),
)


class VLM(nnx.Module):
    """Vision tower → connector → decoder, with a tied or untied head."""

    def __init__(self, config: VLMConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        make = {"std": config.init_std, "dtype": dtype, "rngs": rngs}
        self.config = config
        family = families.of(config)
        self.vision = family.tower(config.vision, **make)
        self.connector = family.connectors[config.connector](config.vision, **make)
        width = config.decoder.hidden
        self.newline = _weights((width,), **{**make, "std": width**-0.5}) if config.newline else None
        self.reducer = nnx.data(LEARNED[config.reducer](width, dtype) if config.reducer else None)
        embedding = (config.decoder.vocab, config.decoder.hidden)
        # `vlm_jax.adapters` may put modules in the place of both tables.
        self.embedding = nnx.data(_weights(embedding, **make))
        self.decoder = Decoder(config.decoder, **make)

        self.head = nnx.data(None if config.decoder.tied else _weights(embedding[::-1], **make))

    def embed(self, batch: Batch, *, dtype=jnp.float32, **options) -> Embedded:
        """Token embeddings with every image token replaced by the visual embedding it takes, and their positions.

        `options` are the tower's.
        """
        x = self.embed_tokens(batch.tokens, dtype)
        if batch.patches is None:
            return Embedded(x, batch.positions)
        visual = self.visual(batch, x, dtype=dtype, **options)
        shown = visual.index[..., None] >= 0
        if self.newline is not None:
            x = jnp.where(visual.index[..., None] == ROW_END, self.newline[...].astype(dtype), x)
        deep = None if visual.deep is None else jnp.where(shown, visual.deep, jnp.zeros((), dtype))
        return Embedded(constrain_rows(jnp.where(shown, visual.taken, x)), visual.positions, deep)

    def visual(self, batch: Batch, words: Float[Array, "b t d"], *, dtype=jnp.float32, **options) -> Taken:
        """The visual embedding that each token takes, which one that is, and all positions.

        Where the device chooses tokens, `visual_index` and positions are those that were chosen.

        Args:
          words: token embeddings.
        """
        patches, importance = self.vision(
            batch.patches,
            batch.patch_coords,
            batch.image_ids,
            batch.window_ids,
            dtype=dtype,
            importance="importance" in needs(batch.method),
            **options,
        )
        visual = self.connector(patches)
        # With DeepStack, features of other blocks of the tower come beside the last one's.
        visual, deep = visual if isinstance(visual, tuple) else (visual, None)
        if batch.chooses:
            return reduced(batch, visual, words, importance, self.reducer, deep)
        index = batch.visual_index
        places = jnp.maximum(index, 0)[..., None]
        taken = jnp.take_along_axis(visual, places, axis=1)
        return Taken(
            taken, index, batch.positions, None if deep is None else jnp.take_along_axis(deep, places[None], axis=2)
        )

    def embed_tokens(self, tokens: Int[Array, "b t"], dtype=jnp.float32) -> Float[Array, "b t d"]:
        if isinstance(self.embedding, nnx.Module):
            return self.embedding.rows(tokens, dtype)
        return output_layer.as_it_lies(self.embedding[...]).at[tokens].get(mode="clip").astype(dtype)

    def __call__(
        self,
        batch: Batch,
        *,
        dtype=jnp.float32,
        implementation: str = "chunked",
        remat: str = "none",
        unroll: bool = False,
        at: Int[Array, "b n"] | None = None,
    ) -> Float[Array, "b t d"] | Float[Array, "b n d"]:
        """Hidden states of whole rows, ready for `logits`, or of the places `at` of each.

        Where tokens are left out within the decoder, whole rows are what is left of them.
        """
        options = {"implementation": implementation, "remat": remat, "unroll": unroll}
        embedded = self.embed(batch, dtype=dtype, **options)
        return through_decoder(self.decoder, embedded, batch, at=at, **options).hidden

    def output_layer(self, hidden: Float[Array, "b n d"]) -> Callable:
        """`logits` for a training step whose hidden states are these: a mesh may divide the words."""
        table = self.embedding if self.head is None else self.head
        vocabulary = self.config.decoder.vocab
        if isinstance(table, nnx.Module) or not output_layer.divides(vocabulary, *hidden.shape[:2]):
            return self.logits
        return output_layer.divided(table[...] if self.head is None else table[...].T, dtype=hidden.dtype)

    def logits(self, hidden: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """float32 logits; call it on the few rows that are needed, never on a whole batch."""
        table = self.embedding if self.head is None else self.head
        if isinstance(table, nnx.Module):
            return table.logits(hidden)
        kernel = self.embedding[...].T if self.head is None else self.head[...]
        return product(hidden, kernel, preferred_element_type=jnp.float32)


def _weights(shape: tuple[int, ...], *, std: float, dtype, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, dtype))
