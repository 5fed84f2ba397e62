"""Shapes of the towers of Qwen2.5-VL and Qwen2-VL."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower of a Qwen-VL model. Lengths named `patch_size` and `window_size` are pixels.

    Attributes:
      variant: qwen2_5_vl or qwen2_vl. Qwen2.5-VL has RMSNorm, SwiGLU and windows; Qwen2-VL has LayerNorm, an MLP with
        QuickGELU, and every block sees the whole image.
    """

    depth: int
    hidden: int
    heads: int
    mlp: int
    out_hidden: int
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    window_size: int = 112
    channels: int = 3
    global_blocks: tuple[int, ...] = (7, 15, 23, 31)
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    pixel_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    pixel_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    """Normalisation of pixels in [0, 1]; CLIP's values unless the folder's image processor says otherwise."""
    variant: str = "qwen2_5_vl"

    @property
    def model_family(self) -> str:
        return self.variant

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def patches_per_token(self) -> int:
        """Patches that become one visual token."""
        return self.merge_size**2

    @property
    def window_side(self) -> int:
        """Side of an attention window, in visual tokens."""
        return self.window_size // self.patch_size // self.merge_size

    @property
    def block_slots(self) -> int:
        """Patch slots of one attention block (one full window)."""
        return self.window_side**2 * self.patches_per_token

    @property
    def patch_dim(self) -> int:
        """Pixel values of one patch of a still image, one temporal slice: C · ph · pw."""
        return self.channels * self.patch_size**2

    def most_tokens(self, slots: int) -> int:
        return slots

    def typical_slots(self, tokens: int) -> int:
        """Patch slots of a row with so many visual tokens, about: an eighth more for windows that fill no block."""
        return tokens * self.patches_per_token * 9 // 8 // self.block_slots * self.block_slots

    def inconsistencies(self) -> list[str]:
        """What in the shapes does not go together, in words."""
        errors = []
        if self.hidden % self.heads or self.head_dim % 4:
            errors.append(
                f"vision hidden_size {self.hidden} over {self.heads} heads must give a head dim divisible by 4"
            )
        if self.window_size % (self.patch_size * self.merge_size):
            errors.append(f"window_size {self.window_size} is not a multiple of patch × merge")
        return errors
