"""Shapes of image encoders of fixed resolution, and of the models that are assembled with them."""

import dataclasses

from vlm_jax.models.config import DecoderConfig, VLMConfig

ENCODERS = ("clip", "siglip", "vit")
"""Variants of `EncoderConfig`."""


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """An image encoder of fixed resolution (CLIP, SigLIP, ViT), as an assembled model takes it.

    A square view of `image_size` pixels is one attention block: its patches, after a class token where the family has
    one. It is a `models.config.TowerConfig`.

    Attributes:
      variant: of `ENCODERS`.
      depth: layers that run; features are taken behind the last of them.
      unused_layers: those that the checkpoint holds behind it. They are carried along, never run, never trained.
      final_norm: whether features go through the encoder's last norm.
      keep_class: whether the class token becomes a visual token.
      pooler: whether the checkpoint holds what pools the patches into one vector; carried along.
      out_hidden: the decoder's width.
    """

    variant: str
    depth: int
    hidden: int
    heads: int
    mlp: int
    out_hidden: int
    image_size: int
    patch_size: int
    channels: int = 3
    unused_layers: int = 0
    final_norm: bool = False
    keep_class: bool = False
    pooler: bool = False
    activation: str = "gelu"
    norm_eps: float = 1e-6
    pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    merge_size: int = 1
    temporal_patch_size: int = 1
    window_side: int = 1
    global_blocks: tuple[int, ...] = ()

    model_family = "llava"

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def patches_per_token(self) -> int:
        return 1

    @property
    def side(self) -> int:
        """Patches along the side of a view; what is left at its right and bottom edge (SigLIP-SO400M) is not seen."""
        return self.image_size // self.patch_size

    @property
    def class_slots(self) -> int:
        """1 where a class token stands before the patches."""
        return 0 if self.variant == "siglip" else 1

    @property
    def block_slots(self) -> int:
        """Slots of a view, the class token's included."""
        return self.side**2 + self.class_slots

    @property
    def view_tokens(self) -> int:
        """Visual tokens of a view."""
        return self.side**2 + (self.class_slots if self.keep_class else 0)

    @property
    def patch_dim(self) -> int:
        """Pixel values of one patch: C · ph · pw."""
        return self.channels * self.patch_size**2

    def most_tokens(self, slots: int) -> int:
        """Each row of patches may end with a separator."""
        return slots + slots // self.side

    def typical_slots(self, tokens: int) -> int:
        """Patch slots of the views that make so many visual tokens; of one view at least."""
        return max(1, tokens // self.view_tokens) * self.block_slots

    def inconsistencies(self) -> list[str]:
        """What in the shapes does not go together, in words."""
        errors = []
        if self.hidden % self.heads:
            errors.append(f"vision hidden_size {self.hidden} does not divide into {self.heads} heads")
        if self.image_size < self.patch_size:
            errors.append(f"image_size {self.image_size} is below patch_size {self.patch_size}")
        return errors


def assembled(encoder: EncoderConfig, decoder: DecoderConfig, **more) -> VLMConfig:
    """A model of an encoder and a text model, which has no tokens around images."""
    return VLMConfig(encoder, decoder, video_token=-1, vision_start_token=-1, vision_end_token=-1, **more)
