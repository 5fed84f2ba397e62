"""Shapes of a model: a tower, a decoder, and what joins them.

Only what changes the computation is kept. The shapes of a tower, and how a `config.json` says all of it, are a family's
(`families`).
"""

import dataclasses
from typing import Protocol, runtime_checkable


@runtime_checkable
class TowerConfig(Protocol):
    """What is asked of the shapes of any tower. Implementations are frozen dataclasses; lengths are in pixels.

    Attributes:
      model_family: a key of `families.FAMILIES`.
      variant: which of the family's towers it is.
      depth, hidden, heads, mlp: of its layers; out_hidden: the decoder's width.
      patch_size: side of a patch; merge_size: patches along the side of a visual token.
      global_blocks: the layers in which every patch sees its whole image.
      pixel_mean, pixel_std: normalisation of pixels in [0, 1].
    """

    variant: str
    depth: int
    hidden: int
    heads: int
    mlp: int
    out_hidden: int
    patch_size: int
    channels: int
    merge_size: int
    temporal_patch_size: int
    global_blocks: tuple[int, ...]
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]

    @property
    def model_family(self) -> str: ...

    @property
    def patches_per_token(self) -> int:
        """Patches that become one visual token."""

    @property
    def window_side(self) -> int:
        """Side of an attention window, in visual tokens."""

    @property
    def block_slots(self) -> int:
        """Patch slots of one attention block, of which a row has a whole number."""

    @property
    def patch_dim(self) -> int:
        """Pixel values of one patch of a still image."""

    def typical_slots(self, tokens: int) -> int:
        """Patch slots of a row with so many visual tokens, about."""

    def most_tokens(self, slots: int) -> int:
        """The most visual tokens of images that so many slots hold, a slot being a token's patches."""

    def inconsistencies(self) -> list[str]:
        """What in the shapes does not go together, in words."""


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A Qwen language model, with M-RoPE in a Qwen-VL model.

    Attributes:
      mrope_sections: frequencies that follow time, row and column; one section of all is plain RoPE.
      mrope_interleaved: whether these take turns, frequency by frequency, as long as all have some (Qwen3-VL), or stand
        one after the other.
      own_head_dim: of queries, keys and values, where it is not the width over the heads.
      qkv_bias: whether their projections have a bias.
      qk_norm: whether queries and keys go through an RMSNorm before they are rotated.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int
    norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    mrope_sections: tuple[int, ...] = (16, 24, 24)
    tied: bool = False
    own_head_dim: int = 0
    qkv_bias: bool = True
    qk_norm: bool = False
    mrope_interleaved: bool = False

    @property
    def head_dim(self) -> int:
        """Of queries, keys and values."""
        return self.own_head_dim or self.hidden // self.heads


@dataclasses.dataclass(frozen=True)
class VLMConfig:
    """A whole model: tower, decoder, and the ids that tie text to images.

    Attributes:
      connector: merger (Qwen-VL's), mlp (two layers with GELU between) or linear.
      newline: whether rows of tiles end with a learned embedding (LLaVA-NeXT's `image_newline`).
      reducer: the method of token reduction whose parameters the model has (`token_reduction.learned`), if any.
      video_token, vision_start_token, vision_end_token: -1 where the model has none.
    """

    vision: TowerConfig
    decoder: DecoderConfig
    image_token: int = 151655
    video_token: int = 151656
    vision_start_token: int = 151652
    vision_end_token: int = 151653
    init_std: float = 0.02
    connector: str = "merger"
    newline: bool = False
    reducer: str = ""

    @property
    def family(self) -> str:
        """Its key in `families.FAMILIES`: what else is its own is stated there."""
        return self.vision.model_family


def not_counts(config: VLMConfig) -> list[str]:
    """Shapes that are no whole numbers above 0, in words."""
    return [
        f"{part} {field.name} is {value!r}; wanted a whole number above 0"
        for part, shapes in (("vision", config.vision), ("decoder", config.decoder))
        for field in dataclasses.fields(shapes)
        if field.type is int
        and field.name not in ("unused_layers", "own_head_dim")
        and (type(value := getattr(shapes, field.name)) is not int or value < 1)
    ]


def inconsistencies(config: VLMConfig) -> list[str]:
    """What in a model's shapes does not go together, in words."""
    vision, decoder = config.vision, config.decoder
    errors = []
    if vision.out_hidden != decoder.hidden:
        errors.append(
            f"vision out_hidden_size {vision.out_hidden} differs from the decoder's hidden_size {decoder.hidden}"
        )
    if (decoder.hidden % decoder.heads and not decoder.own_head_dim) or decoder.heads % decoder.kv_heads:
        errors.append(
            f"hidden_size {decoder.hidden}, {decoder.heads} heads and {decoder.kv_heads} key-value heads do not divide"
        )
    elif sum(decoder.mrope_sections) * 2 != decoder.head_dim:
        errors.append(f"mrope_section {list(decoder.mrope_sections)} must sum to half the head dim {decoder.head_dim}")
    return errors + vision.inconsistencies()
