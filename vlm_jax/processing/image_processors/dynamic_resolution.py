"""Qwen-VL's image processor: every image in its own shape, as many visual tokens as its size asks for, within bounds.

The rules are `Qwen2VLImageProcessor`'s: `smart_resize`, bicubic on uint8, patches grouped by the tokens they become.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Int, UInt8

from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors import file
from vlm_jax.processing.images import patchify, smart_resize
from vlm_jax.processing.positions import mrope_positions
from vlm_jax.processing.vision_layout import VisionLayout, vision_layout

_KEYS = ("min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size")
# transformers' processor takes these and does nothing with them.
_WITHOUT_EFFECT = ("do_center_crop", "crop_size", "do_pad", "pad_size")
_KINDS = tuple(f"Qwen2VLImageProcessor{backend}" for backend in ("", "Fast", "Pil"))


@dataclasses.dataclass(frozen=True)
class DynamicResolution:
    """An `ImageProcessor`: images keep their shape; their size says how many visual tokens they take.

    Attributes:
      mean, std: of (pixel / 255 - mean) / std, whatever the file says of rescaling.
      resample: Pillow's filter, bicubic (3) in every published folder.
    """

    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    patch_size: int = 14
    merge_size: int = 2
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    resample: int = 3

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> "DynamicResolution":
        """Of the settings of a Qwen2-VL image processor (`file.read`), null and defaults as transformers has them.

        Raises:
          InputError: another kind of image processor, or settings that are not computed.
          TypeError, ValueError, AttributeError: values of the wrong type.
        """
        kind = settings.get("image_processor_type")
        if kind is not None and kind not in _KINDS:
            raise InputError(f"image_processor_type is {kind!r}; wanted {_KINDS[0]}")
        settings = {key: value for key, value in settings.items() if key not in _WITHOUT_EFFECT}
        if errors := file.errors(settings, _KEYS):
            raise InputError(errors)
        return _read(settings)

    def to_json(self, processor_class: str) -> dict[str, Any]:
        """`preprocessor_config.json` in the form of the hub's Qwen2-VL and Qwen2.5-VL folders."""
        return {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": processor_class,
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            "patch_size": self.patch_size,
            "temporal_patch_size": 2,
            "merge_size": self.merge_size,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "rescale_factor": 1 / 255,
            "resample": self.resample,
        }

    @property
    def patch_dim(self) -> int:
        return 3 * self.patch_size**2

    @property
    def patches_per_token(self) -> int:
        return self.merge_size**2

    @property
    def factor(self) -> int:
        """Side in pixels of what a visual token sees."""
        return self.patch_size * self.merge_size

    @property
    def identity(self) -> tuple:
        """What tells settings apart, where the encoder is the same."""
        filtered = () if self.resample == DynamicResolution.resample else (self.resample,)
        return self.min_pixels, self.max_pixels, *filtered

    @property
    def token_range(self) -> tuple[int, int]:
        """The fewest and the most visual tokens an image can take."""
        return -(-self.min_pixels // self.factor**2), self.max_pixels // self.factor**2

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Visual tokens (rows, columns) of an image of this size in pixels."""
        tall, wide = smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)
        return tall // self.factor, wide // self.factor

    def tokens(self, grid: tuple[int, int]) -> int:
        """Visual tokens of an image."""
        return grid[0] * grid[1]

    def most_tokens(self, slots: int) -> int:
        return slots

    def layout(self, grid: tuple[int, int], window_side: int) -> VisionLayout:
        return vision_layout(*grid, window_side, self.merge_size)

    def positions(
        self, ids: Int[np.ndarray, " n"], grids: Sequence[tuple[int, int]], image_token: int
    ) -> Int[np.ndarray, "3 n"]:
        return mrope_positions(ids, grids, image_token)

    def cut(
        self, image: PIL.Image.Image, grid: tuple[int, int]
    ) -> UInt8[np.ndarray, "tokens patches_per_token values"]:
        """A decoded image resized to a grid of visual tokens and cut up."""
        height, width = grid[0] * self.factor, grid[1] * self.factor
        if image.size != (width, height):
            image = image.resize((width, height), self.resample)
        return patchify(image, height, width, self.patch_size, self.merge_size)

    def with_token_range(self, visual_tokens: tuple[int, int] | int | None) -> "DynamicResolution":
        """At most (or between) so many visual tokens an image."""
        if visual_tokens is None:
            return self
        low, high = (1, visual_tokens) if isinstance(visual_tokens, int) else visual_tokens
        if not 1 <= low <= high:
            raise InputError(f"visual tokens {low} to {high}: wanted 1 <= minimum <= maximum")
        return dataclasses.replace(self, min_pixels=low * self.factor**2, max_pixels=high * self.factor**2)


def _read(settings: Mapping[str, Any]) -> DynamicResolution:
    default = DynamicResolution()

    def first(*values):
        return next(value for value in values if value is not None)

    low, high = _pixel_bounds(settings)
    mean, std = file.normalisation(settings, default.mean, default.std)
    whole = {
        "min_pixels": low,
        "max_pixels": high,
        "patch_size": first(settings.get("patch_size"), default.patch_size),
        "merge_size": first(settings.get("merge_size"), default.merge_size),
    }
    # Some write 50176.0, which transformers takes.
    whole = {key: int(one) if isinstance(one, float) and one.is_integer() else one for key, one in whole.items()}
    odd = [key for key, one in whole.items() if not isinstance(one, int) or isinstance(one, bool) or one < 1]
    if odd:
        values = ", ".join(f"{key} {whole[key]!r}" for key in odd)
        raise ValueError(f"{values}: must be a whole number above 0; correct it in the file")
    read = DynamicResolution(**whole, mean=mean, std=std, resample=settings.get("resample", default.resample))
    if read.min_pixels > read.max_pixels:
        raise ValueError(f"min_pixels {read.min_pixels} is above max_pixels {read.max_pixels}")
    if (frames := first(settings.get("temporal_patch_size"), 2)) != 2:
        raise ValueError(f"temporal_patch_size is {frames!r}; wanted 2")
    return read


def _pixel_bounds(settings: Mapping[str, Any]) -> tuple[int, int]:
    """`min_pixels` and `max_pixels`, else those of `size` by their names of transformers 4.4x or of later ones.

    Raises:
      ValueError: a size with other keys, or with one of the two bounds.
    """
    size, default = settings.get("size"), DynamicResolution()
    if size is None:
        size = {"shortest_edge": default.min_pixels, "longest_edge": default.max_pixels}
    if not isinstance(size, Mapping):
        raise ValueError(f"size is {size!r}; wanted shortest_edge and longest_edge, in pixels of area")
    spellings = (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels"))
    odd = [key for key, value in size.items() if value is not None and key not in (*spellings[0], *spellings[1])]
    bounds = [
        next((value for value in (settings.get(old), size.get(new), size.get(old)) if value is not None), None)
        for new, old in spellings
    ]
    if odd or None in bounds:
        raise ValueError(f"size is {dict(size)}; wanted shortest_edge and longest_edge, in pixels of area")
    return bounds[0], bounds[1]
