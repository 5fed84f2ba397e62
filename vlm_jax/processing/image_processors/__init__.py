"""How images are prepared for a tower: one protocol, two implementations.

    dynamic_resolution   Qwen-VL: every image in its own shape
    fixed_views          CLIP, SigLIP, ViT: square views, whole or in tiles

`file` reads and judges the settings that transformers writes; which implementation they are for, a model family says
(`vlm_jax.models.families`).
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import PIL.Image
from jaxtyping import Int, UInt8

from vlm_jax.processing.vision_layout import VisionLayout

Grid = tuple[int, ...]
"""How an image is cut, as its processor says it: visual tokens (rows, columns), or a `fixed_views.Tiling`."""


@runtime_checkable
class ImageProcessor(Protocol):
    """What an image becomes. Implementations are frozen dataclasses: they are compared, and stored with checkpoints.

    Attributes:
      patch_size: pixels along the side of a patch.
      merge_size: patches along the side of a visual token.
      mean, std: of (pixel / 255 - mean) / std, which is computed on the device.
    """

    patch_size: int
    merge_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def patch_dim(self) -> int:
        """Pixel values of a patch."""

    @property
    def patches_per_token(self) -> int:
        """Patches that become one visual token."""

    @property
    def factor(self) -> int:
        """Side in pixels of what a visual token sees."""

    @property
    def token_range(self) -> tuple[int, int]:
        """The fewest and the most visual tokens that an image can take."""

    @property
    def identity(self) -> tuple:
        """What tells settings apart, where the tower is the same."""

    def with_token_range(self, visual_tokens: tuple[int, int] | int | None) -> "ImageProcessor":
        """With at most, or between, so many visual tokens an image; None: as it is.

        Raises:
          InputError: no image can have as few.
        """

    def grid(self, width: int, height: int) -> Grid:
        """How an image of this size in pixels is cut.

        Raises:
          InputError: it has a shape that is not taken.
        """

    def tokens(self, grid: Grid) -> int:
        """Visual tokens of an image."""

    def most_tokens(self, slots: int) -> int:
        """The most visual tokens of images that so many slots of the tower hold, a slot being a token's patches."""

    def layout(self, grid: Grid, window_side: int) -> VisionLayout:
        """Where its patches lie in the tower, and which of them each token takes."""

    def positions(self, ids: Int[np.ndarray, " n"], grids: Sequence[Grid], image_token: int) -> Int[np.ndarray, "3 n"]:
        """Positions of the tokens of a whole example."""

    def cut(self, image: PIL.Image.Image, grid: Grid) -> UInt8[np.ndarray, "tokens patches_per_token values"]:
        """The patches of an upright RGB image."""

    def to_json(self, processor_class: str) -> dict[str, Any]:
        """The content of `preprocessor_config.json`, for transformers' processor of this class."""
