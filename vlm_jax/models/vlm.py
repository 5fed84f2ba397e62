"""The whole model: pictures and tokens in, hidden states and logits out.

One class for Qwen-VL models and assembled ones: they differ in their tower and connector, which take the same arrays.

What stands where (positions, which token takes which visual embedding, which slots are padding) was worked out on the
host by `vlm_jax.processing`; nothing here depends on the size of a picture.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.decoder import Decoder
from vlm_jax.models.encoder import EncoderTower, LinearProjector, Projector
from vlm_jax.models.layers import product, rows_apart
from vlm_jax.models.vision import Merger, VisionTower
from vlm_jax.processing.rows import ROW_END

Batch = dict[str, Array]
"""The arrays of `vlm_jax.processing.rows.assemble`, by name."""


CONNECTORS = {"merger": Merger, "mlp": Projector, "linear": LinearProjector}


class VLM(nnx.Module):
    """Vision tower → connector → decoder, with a tied or untied head."""

    def __init__(self, config: VLMConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        make = {"std": config.init_std, "dtype": dtype, "rngs": rngs}
        self.config = config
        self.vision = (EncoderTower if config.assembled else VisionTower)(config.vision, **make)
        self.connector = CONNECTORS[config.connector](config.vision, **make)
        width = config.decoder.hidden
        self.newline = _weights((width,), **{**make, "std": width**-0.5}) if config.newline else None
        embedding = (config.decoder.vocab, config.decoder.hidden)
        # `vlm_jax.adapters` may put modules in the place of both tables.
        self.embedding = nnx.data(_weights(embedding, **make))
        self.decoder = Decoder(config.decoder, **make)

        self.head = nnx.data(None if config.decoder.tied else _weights(embedding[::-1], **make))

    def embed(self, batch: Batch, *, dtype=jnp.float32, **how) -> Float[Array, "b t d"]:
        """Token embeddings with every image token replaced by the visual embedding it takes; `how` is the tower's."""
        x = self.embed_tokens(batch["tokens"], dtype)
        if "patches" not in batch:
            return x
        patches = self.vision(
            batch["patches"],
            batch["patch_coords"],
            batch["image_ids"],
            batch["window_ids"],
            dtype=dtype,
            **how,
        )
        visual = self.connector(patches)
        index = batch["visual_index"]
        taken = jnp.take_along_axis(visual, jnp.maximum(index, 0)[..., None], axis=1)
        if self.newline is not None:
            x = jnp.where(index[..., None] == ROW_END, self.newline[...].astype(dtype), x)
        return rows_apart(jnp.where(index[..., None] >= 0, taken, x))

    def embed_tokens(self, tokens: Int[Array, "b t"], dtype=jnp.float32) -> Float[Array, "b t d"]:
        if isinstance(self.embedding, nnx.Module):
            return self.embedding.rows(tokens, dtype)
        return self.embedding[...].at[tokens].get(mode="clip").astype(dtype)

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
        """Hidden states of whole rows, ready for `logits`, or of the places `at` of each."""
        how = {"implementation": implementation, "remat": remat, "unroll": unroll}
        x = self.embed(batch, dtype=dtype, **how)
        return self.decoder(x, batch["positions"], batch["segment_ids"], at=at, **how)

    def logits(self, hidden: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """float32 logits; call it on the few rows that are needed, never on a whole batch."""
        table = self.embedding if self.head is None else self.head
        if isinstance(table, nnx.Module):
            return table.logits(hidden)
        kernel = self.embedding[...].T if self.head is None else self.head[...]
        return product(hidden, kernel, preferred_element_type=jnp.float32)


def _weights(shape: tuple[int, ...], *, std: float, dtype, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, dtype))
