"""Shapes of the tower of Qwen3-VL."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower of a Qwen3-VL model.

    Attributes:
      position_rows: learned positions, a square table in reading order, which is stretched over an image's grid.
      deepstack: blocks, ascending, whose output also goes to the decoder, through mergers of their own: what comes of
        the first is added behind the decoder's first layer, and so on.
    """

    depth: int
    hidden: int
    heads: int
    mlp: int
    out_hidden: int
    deepstack: tuple[int, ...] = (8, 16, 24)
    position_rows: int = 2304
    patch_size: int = 16
    temporal_patch_size: int = 2
    merge_size: int = 2
    channels: int = 3
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    variant: str = "qwen3_vl"

    @property
    def model_family(self) -> str:
        return "qwen3_vl"

    @property
    def global_blocks(self) -> tuple[int, ...]:
        """All of them: there are no windows."""
        return tuple(range(self.depth))

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def position_side(self) -> int:
        """Of the square of learned positions."""
        return math.isqrt(self.position_rows)

    @property
    def patches_per_token(self) -> int:
        """Patches that become one visual token."""
        return self.merge_size**2

    @property
    def window_side(self) -> int:
        """A block of the layout is one visual token: images keep their order and need no padding."""
        return 1

    @property
    def block_slots(self) -> int:
        return self.patches_per_token

    @property
    def patch_dim(self) -> int:
        """Pixel values of one patch of a still image, one temporal slice: C · ph · pw."""
        return self.channels * self.patch_size**2

    def most_tokens(self, slots: int) -> int:
        return slots

    def typical_slots(self, tokens: int) -> int:
        return tokens * self.patches_per_token

    def inconsistencies(self) -> list[str]:
        """What in the shapes does not go together, in words."""
        errors = []
        if self.hidden % self.heads or self.head_dim % 4:
            errors.append(
                f"vision hidden_size {self.hidden} over {self.heads} heads must give a head dim divisible by 4"
            )
        if self.position_side**2 != self.position_rows:
            errors.append(f"num_position_embeddings {self.position_rows} is no square")
        taken = self.deepstack
        if list(taken) != sorted(set(taken)) or any(not 0 <= block < self.depth for block in taken):
            errors.append(
                f"deepstack_visual_indexes {list(taken)}: wanted blocks from 0 to {self.depth - 1}, ascending"
            )
        return errors
