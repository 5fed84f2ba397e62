"""From a conversation to the arrays a model is fed: text, pictures, positions and loss mask together.

One `Processor` serves training, evaluation and chat, so that they cannot differ. Its settings travel with every
checkpoint. Fixing shapes and batching belong to `rows`.
"""

import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Float32, Int, UInt8

from vlm_jax.errors import InputError, gathered
from vlm_jax.processing import chat
from vlm_jax.processing.images import describe, open_image, patchify, smart_resize
from vlm_jax.processing.positions import mrope_positions
from vlm_jax.processing.rows import Example, Picture, Size
from vlm_jax.processing.views import ViewSettings
from vlm_jax.processing.vision_layout import VisionLayout, vision_layout

Grid = tuple[int, ...]
"""Merged units (rows, columns) of a picture, or a `views.Tiling`."""


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """How pictures are sized for a Qwen-VL model, from a folder's image processor file.

    `views.ViewSettings` is the same for encoders of fixed resolution; a `Processor` takes either.
    """

    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    patch_size: int = 14
    merge_size: int = 2
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def factor(self) -> int:
        """Side of a merged unit in pixels."""
        return self.patch_size * self.merge_size

    @property
    def identity(self) -> tuple:
        """What tells settings apart, where the encoder is the same."""
        return self.min_pixels, self.max_pixels

    @property
    def budget(self) -> tuple[int, int]:
        """The fewest and the most visual tokens a picture can take."""
        return -(-self.min_pixels // self.factor**2), self.max_pixels // self.factor**2

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Merged units (rows, columns) of a picture of this size in pixels."""
        tall, wide = smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)
        return tall // self.factor, wide // self.factor

    def tokens(self, grid: tuple[int, int]) -> int:
        """Visual tokens of a picture."""
        return grid[0] * grid[1]

    def layout(self, grid: tuple[int, int], window_units: int) -> VisionLayout:
        return vision_layout(*grid, window_units, self.merge_size)

    def positions(
        self, ids: Int[np.ndarray, " n"], grids: Sequence[tuple[int, int]], image_token: int
    ) -> Int[np.ndarray, "3 n"]:
        return mrope_positions(ids, grids, image_token)

    def cut(self, image: PIL.Image.Image, grid: tuple[int, int]) -> UInt8[np.ndarray, "units merge_unit values"]:
        """A decoded picture resized to a grid of merged units and cut up."""
        return patchify(image, grid[0] * self.factor, grid[1] * self.factor, self.patch_size, self.merge_size)

    def with_budget(self, visual_tokens: tuple[int, int] | int | None) -> "ImageSettings":
        """At most (or between) so many visual tokens a picture."""
        if visual_tokens is None:
            return self
        low, high = (1, visual_tokens) if isinstance(visual_tokens, int) else visual_tokens
        if not 1 <= low <= high:
            raise InputError(f"visual tokens {low} to {high}: wanted 1 <= minimum <= maximum")
        return dataclasses.replace(self, min_pixels=low * self.factor**2, max_pixels=high * self.factor**2)


Pictures = ImageSettings | ViewSettings
"""How pictures are prepared: for a Qwen-VL model, or for an encoder of fixed resolution."""


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """A conversation's words: token ids with one placeholder a picture, and what each weighs in the loss."""

    ids: Int[np.ndarray, " n"]
    weights: Float32[np.ndarray, " n"]


class Processor:
    """Tokenizer, chat template and picture rules of one checkpoint."""

    def __init__(
        self,
        tokenizer,
        images: ImageSettings | ViewSettings,
        *,
        image_token: int,
        window_units: int,
        template: str | None = None,
    ):
        """`window_units` is the side of a vision attention window, in merged units."""
        self.tokenizer, self.images, self.template = tokenizer, images, template
        self.image_token, self.window_units = image_token, window_units

    def encode(self, messages: Sequence[chat.Message], *, generation_prompt: bool = False) -> Example:
        """Processes a conversation.

        Raises:
          InputError: not a conversation, an unreadable picture, or placeholders that do not match the pictures.
        """
        text = self.tokenize(messages, generation_prompt=generation_prompt)
        pictures, faults = [], []
        for part in chat.image_parts(messages):
            with gathered(faults):
                pictures.append(self.picture(chat.image_source(part)))
        if faults:
            raise InputError(faults)
        return self.lay_out(text, pictures)

    def tokenize(self, messages: Sequence[chat.Message], *, generation_prompt: bool = False) -> "Text":
        """The words of a conversation, before its pictures are looked at.

        Raises:
          InputError: not a conversation, or one that the template cannot render.
        """
        chat.check_messages(messages)
        ids, weights = chat.tokenize(self.tokenizer, self.template, messages, generation_prompt=generation_prompt)
        return Text(ids, weights)

    def lay_out(self, text: "Text", pictures: Sequence[Picture], *, longest: int | None = None) -> Example:
        """Words and pictures as one example; of one that is longer, the first `longest` tokens.

        Raises:
          InputError: placeholders and pictures differ in number, or the cut would go through a picture.
        """
        grids = [picture.grid for picture in pictures]
        ids, weights = self._expanded(text, grids, longest)
        positions = self.images.positions(ids, grids, self.image_token)
        return Example(ids, positions, weights, tuple(pictures), self.image_token)

    def size(self, text: "Text", grids: Sequence[Grid], *, longest: int | None = None) -> Size:
        """What `lay_out` would take of a row, from the grids of the pictures alone: nothing is decoded."""
        ids, weights = self._expanded(text, grids, longest)
        slots = sum(len(self._layout(grid).units) for grid in grids)
        return Size(len(ids), slots * self.images.merge_size**2, int(np.count_nonzero(weights)))

    def _expanded(self, text: "Text", grids: Sequence[Grid], longest: int | None):
        counts = [self.images.tokens(grid) for grid in grids]
        ids, weights = chat.expand_pictures(text.ids, text.weights, counts, self.image_token)
        if longest is not None and len(ids) > longest:
            if (ids[longest:] == self.image_token).any():
                raise InputError(f"cut to {longest} tokens it would lose a part of a picture")
            if not weights[:longest].any():
                raise InputError(f"cut to {longest} tokens nothing would be left to learn")
            ids, weights = ids[:longest], weights[:longest]
        return ids, weights

    def with_budget(self, visual_tokens: tuple[int, int]) -> "Processor":
        """The same words, pictures between so many visual tokens."""
        other = copy.copy(self)
        other.images = self.images.with_budget(visual_tokens)
        return other

    def picture(self, source) -> Picture:
        image = open_image(source)
        try:
            grid = self.grid(*image.size)
        except InputError as error:
            raise InputError(f"{describe(source)}: {error}") from None
        return self.picture_of(self.images.cut(image, grid), grid)

    def picture_of(self, patches: UInt8[np.ndarray, "units merge_unit values"], grid: Grid) -> Picture:
        return Picture(patches, grid, self._layout(grid))

    def grid(self, width: int, height: int) -> Grid:
        """How a picture of this size in pixels is cut."""
        return self.images.grid(width, height)

    def _layout(self, grid: Grid) -> VisionLayout:
        return self.images.layout(grid, self.window_units)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of generated ids, special tokens left out."""
        return self.tokenizer.decode(
            np.asarray(ids).tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def read_image_settings(folder: Path) -> ImageSettings:
    """Picture rules of a Hugging Face folder: `preprocessor_config.json`, or `processor_config.json` of transformers 5.

    Raises:
      InputError: neither file is there, or it is not a Qwen2-VL image processor.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: unreadable ({error})") from None
        held = held.get("image_processor", held) if isinstance(held, dict) else held
        if not isinstance(held, dict):
            raise InputError(f"{path}: holds no JSON object that describes the pictures")
        if "image_processor_type" not in held and "patch_size" not in held:
            continue
        kind = held.get("image_processor_type", "Qwen2VLImageProcessor")
        if not kind.startswith("Qwen2VLImageProcessor"):
            raise InputError(f"{path}: image_processor_type is {kind!r}; wanted Qwen2VLImageProcessor")

        try:
            return _image_settings(held)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: picture settings that cannot be used ({error})") from None
    raise InputError(f"{folder}: no preprocessor_config.json (or processor_config.json) that describes the pictures")


def _image_settings(held: dict[str, Any]) -> ImageSettings:
    size, default = held.get("size") or {}, ImageSettings()

    def pick(*values):
        return next(value for value in values if value is not None)

    settings = ImageSettings(
        min_pixels=pick(held.get("min_pixels"), size.get("shortest_edge"), size.get("min_pixels"), default.min_pixels),
        max_pixels=pick(held.get("max_pixels"), size.get("longest_edge"), size.get("max_pixels"), default.max_pixels),
        patch_size=held.get("patch_size", default.patch_size),
        merge_size=held.get("merge_size", default.merge_size),
        mean=tuple(map(float, held.get("image_mean") or default.mean)),
        std=tuple(map(float, held.get("image_std") or default.std)),
    )
    whole = (settings.min_pixels, settings.max_pixels, settings.patch_size, settings.merge_size)
    if not all(isinstance(value, int) and value > 0 for value in whole):
        raise ValueError(f"pixel bounds, patch and merge size must be whole numbers above 0, got {whole}")
    if settings.min_pixels > settings.max_pixels:
        raise ValueError(f"min_pixels {settings.min_pixels} is above max_pixels {settings.max_pixels}")
    if len(settings.mean) != 3 or len(settings.std) != 3 or min(settings.std) <= 0:
        raise ValueError("image_mean and image_std must hold three numbers, the latter above 0")
    if abs(held.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise ValueError(f"rescale_factor {held['rescale_factor']} is not 1/255")
    return settings


def image_settings_json(settings: ImageSettings, processor_class: str = "Qwen2_5_VLProcessor") -> dict[str, Any]:
    """`preprocessor_config.json` in the form of the hub's Qwen2-VL and Qwen2.5-VL folders."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processor_class,
        "min_pixels": settings.min_pixels,
        "max_pixels": settings.max_pixels,
        "size": {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels},
        "patch_size": settings.patch_size,
        "temporal_patch_size": 2,
        "merge_size": settings.merge_size,
        "image_mean": list(settings.mean),
        "image_std": list(settings.std),
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
    }
