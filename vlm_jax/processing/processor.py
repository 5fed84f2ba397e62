"""From a conversation to the arrays a model is fed: text, pictures, positions and loss mask together.

One `Processor` serves training, evaluation and chat, so that they cannot differ. Its settings travel with every
checkpoint. Fixing shapes and batching belong to `rows`.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Float32, Int, UInt8

from vlm_jax.errors import InputError, gathered
from vlm_jax.processing import chat, image_processor_file
from vlm_jax.processing.images import describe, patchify, smart_resize, with_image
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

    @property
    def factor(self) -> int:
        """Side of a merged unit in pixels."""
        return self.patch_size * self.merge_size

    @property
    def identity(self) -> tuple:
        """What tells settings apart, where the encoder is the same."""
        filtered = () if self.resample == ImageSettings.resample else (self.resample,)
        return self.min_pixels, self.max_pixels, *filtered

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
        height, width = grid[0] * self.factor, grid[1] * self.factor
        if image.size != (width, height):
            image = image.resize((width, height), self.resample)
        return patchify(image, height, width, self.patch_size, self.merge_size)

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
        """
        Args:
          window_units: side of a vision attention window, in merged units.
        """
        self.tokenizer, self.images, self.template = tokenizer, images, template
        self.image_token, self.window_units = image_token, window_units
        self.most_tokens: int | None = None
        """That are of use: of a text of more than twice as many, only the beginning is tokenised."""

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
        ids, weights = chat.tokenize(
            self.tokenizer,
            self.template,
            messages,
            generation_prompt=generation_prompt,
            most=self.most_tokens,
            image_token=self.image_token,
        )
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
        def cut(image: PIL.Image.Image) -> Picture:
            try:
                grid = self.grid(*image.size)
            except InputError as error:
                raise InputError(f"{describe(source)}: {error}") from None
            return self.picture_of(self.images.cut(image, grid), grid)

        return with_image(source, cut)

    def picture_of(self, patches: UInt8[np.ndarray, "units merge_unit values"], grid: Grid) -> Picture:
        return Picture(patches, grid, self._layout(grid))

    def grid(self, width: int, height: int) -> Grid:
        """How a picture of this size in pixels is cut."""
        return self.images.grid(width, height)

    def _layout(self, grid: Grid) -> VisionLayout:
        return self.images.layout(grid, self.window_units)

    def end_of_turn(self) -> int | None:
        """The token that ends an answer by the chat template, which training teaches; None where no one token does."""
        try:
            turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
            ids, said = chat.tokenize(self.tokenizer, self.template, turns)
        except InputError:  # a template that renders no answer teaches no end of one
            return None
        last = int(ids[np.flatnonzero(said)[-1]])
        known = {*self.tokenizer.get_added_vocab().values(), *self.tokenizer.all_special_ids}
        return last if last in known else None

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of generated ids, special tokens left out."""
        return self.tokenizer.decode(
            np.asarray(ids).tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


_QWEN_KEYS = ("min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size")
# transformers' processor takes these and does nothing with them.
_QWEN_WITHOUT_EFFECT = ("do_center_crop", "crop_size", "do_pad", "pad_size")
_QWEN_KINDS = tuple(f"Qwen2VLImageProcessor{backend}" for backend in ("", "Fast", "Pil"))


def read_image_settings(folder: Path) -> ImageSettings:
    """Picture rules of a Hugging Face folder: `preprocessor_config.json`, or `processor_config.json` of transformers 5.

    Raises:
      InputError: neither file is there, it is not a Qwen2-VL image processor, or it has settings that are not computed.
    """
    path, settings = image_processor_file.read(folder)
    kind = settings.get("image_processor_type")
    if kind is not None and kind not in _QWEN_KINDS:
        raise InputError(f"{path}: image_processor_type is {kind!r}; wanted {_QWEN_KINDS[0]}")
    settings = {key: value for key, value in settings.items() if key not in _QWEN_WITHOUT_EFFECT}
    if faults := image_processor_file.faults(settings, _QWEN_KEYS):
        raise InputError([f"{path}: {fault}" for fault in faults])
    try:
        return _image_settings(settings)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: picture settings that cannot be used ({error})") from None


def _image_settings(settings: Mapping[str, Any]) -> ImageSettings:
    default = ImageSettings()

    def first(*values):
        return next(value for value in values if value is not None)

    low, high = _pixel_bounds(settings)
    mean, std = image_processor_file.normalisation(settings, default.mean, default.std)
    read = ImageSettings(
        min_pixels=low,
        max_pixels=high,
        patch_size=first(settings.get("patch_size"), default.patch_size),
        merge_size=first(settings.get("merge_size"), default.merge_size),
        mean=mean,
        std=std,
        resample=settings.get("resample", default.resample),
    )
    whole = (read.min_pixels, read.max_pixels, read.patch_size, read.merge_size)
    if not all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in whole):
        raise ValueError(f"pixel bounds, patch and merge size must be whole numbers above 0, got {whole}")
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
    size, default = settings.get("size"), ImageSettings()
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
        "resample": settings.resample,
    }
