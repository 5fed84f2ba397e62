"""Images for encoders of fixed resolution: square views, cut into patches, and which tokens they become.

  squash     the whole image, its sides scaled apart (ViT's and SigLIP's processors)
  crop       the shorter side scaled to the view, the middle cut out (CLIP's)
  letterbox  padded to a square, then scaled: nothing is cut, nothing distorted (LLaVA-1.5's, with the mean colour)
  anyres     the whole image squashed, and beside it tiles of the image in the best fitting of a few sizes, each row
             of their patches ended by a separator (LLaVA-NeXT)

Pixels are those of transformers' Pillow processors, but for transparency (laid on white) and turned photographs (turned
upright): see `images`.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Int, UInt8

from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors import file
from vlm_jax.processing.image_processors.tiles import Tiling, best_size, layout_of, padded_square
from vlm_jax.processing.images import check_aspect, patchify
from vlm_jax.processing.vision_layout import VisionLayout

MODES = ("squash", "crop", "letterbox", "anyres")

# Means and deviations that transformers' classes have where a file names none.
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CROP = 224
"""Likewise the `crop_size` of those that crop."""
# A kind of processor, and its settings beside `file.PIXELS`. `background` is this package's own.
_KINDS = {
    "CLIP": ("do_center_crop", "crop_size"),
    "Siglip": (),
    "ViT": (),
    "LlavaNext": ("do_center_crop", "crop_size", "do_pad", "image_grid_pinpoints"),
    "Llava": ("do_center_crop", "crop_size", "do_pad", "background"),
}


@dataclasses.dataclass(frozen=True)
class FixedViews:
    """An `ImageProcessor`: images become square views.

    Attributes:
      image_size, patch_size: pixels along the side of a view, and of a patch.
      class_token: whether a slot before the patches belongs to a class token; keep_class: whether it is a visual token.
      mode: of `MODES`.
      resample: Pillow's filter, of `file.RESAMPLING`.
      background: colour beside a letter-boxed image.
      shortest_edge: what the shorter side is scaled to before the middle is cut out; 0: `image_size`.
      pinpoints: sizes (height, width) in pixels that an image is laid into in mode anyres.
    """

    image_size: int
    patch_size: int
    class_token: bool
    keep_class: bool
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = 3
    background: tuple[int, ...] = (0, 0, 0)
    shortest_edge: int = 0
    pinpoints: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_json(
        cls, settings: Mapping[str, Any], *, image_size: int, patch_size: int, class_token: bool, keep_class: bool
    ) -> "FixedViews":
        """Of the settings of an image processor (`file.read`), for an encoder of these sizes.

        Raises:
          InputError: a kind of processor that is not known, or settings that are not computed or do not suit the
            encoder.
          TypeError, ValueError, AttributeError, KeyError: values of the wrong type, or that do not suit the encoder.
        """
        kind = _kind(settings)
        if errors := _not_computed(settings, kind):
            raise InputError(errors)
        views = _read(settings, kind, image_size, patch_size, class_token, keep_class)
        if errors := views.errors():
            raise InputError(errors)
        return views

    @property
    def merge_size(self) -> int:
        return 1

    @property
    def patches_per_token(self) -> int:
        return 1

    @property
    def patch_dim(self) -> int:
        return 3 * self.patch_size**2

    @property
    def side(self) -> int:
        return self.image_size // self.patch_size

    @property
    def token_range(self) -> tuple[int, int]:
        """The fewest and the most visual tokens an image can take."""
        counts = [self.tokens(self._whole(size)) for size in self.pinpoints] or [self.tokens(Tiling())]
        return min(counts), max(counts)

    @property
    def factor(self) -> int:
        """Side in pixels of what a visual token sees."""
        return self.patch_size

    @property
    def identity(self) -> tuple:
        """What tells settings apart."""
        return dataclasses.astuple(self)

    @property
    def mean_colour(self) -> tuple[int, ...]:
        """The encoder's mean as a colour, rounded as LLaVA does."""
        return tuple(int(one * 255) for one in self.mean)

    def with_token_range(self, visual_tokens: tuple[int, int] | int | None) -> "FixedViews":
        """At most so many visual tokens an image: of the sizes for tiles, those that keep to it.

        Raises:
          InputError: a view alone has more.
        """
        if visual_tokens is None:
            return self
        _, high = (1, visual_tokens) if isinstance(visual_tokens, int) else visual_tokens
        allowed = tuple(size for size in self.pinpoints if self.tokens(self._whole(size)) <= high)
        if self.pinpoints and allowed:
            return dataclasses.replace(self, pinpoints=allowed)
        if high < (least := self.token_range[0]):
            raise InputError(
                f"at most {high} visual tokens an image, and this encoder makes {least} of the smallest; allow at "
                f"least {least} (model.max_visual_tokens)"
            )
        return self

    def grid(self, width: int, height: int) -> Tiling:
        """How an image of this size in pixels is cut.

        Raises:
          InputError: an aspect ratio above 200, or, letter-boxed, a square that is larger than images may be.
        """
        check_aspect(width, height)
        if self.mode == "letterbox" and max(width, height) ** 2 > (limit := 2 * (PIL.Image.MAX_IMAGE_PIXELS or 10**8)):
            raise InputError(
                f"{width} × {height} pixels make a square of more than {limit // 10**6} million; scale it down first"
            )
        if self.mode != "anyres":
            return Tiling()
        size = best_size((height, width), self.pinpoints)
        rows, columns = size[0] // self.image_size, size[1] // self.image_size
        tall, wide = rows * self.side, columns * self.side
        # What LLaVA-NeXT takes the padding to be, from the ratio of the sides; 7 digits, as it does.
        if width / height > wide / tall:
            tall -= (tall - int(round(height * (wide / width), 7))) // 2 * 2
        else:
            wide -= (wide - int(round(width * (tall / height), 7))) // 2 * 2
        return Tiling(rows, columns, tall, wide)

    def tokens(self, grid: Tiling) -> int:
        """Visual tokens of an image, row separators included."""
        view = self.side**2 + (self.class_token and self.keep_class)
        return view + grid.tall * (grid.wide + 1)

    def most_tokens(self, slots: int) -> int:
        """Each row of `side` patches may end with a separator."""
        return slots + slots // self.side

    def layout(self, grid: Tiling, window_side: int = 1) -> VisionLayout:
        """Where the patches of an image lie in the tower, and which of them each token takes."""
        return layout_of(grid, self.side, self.class_token, self.keep_class)

    def positions(
        self, ids: Int[np.ndarray, " n"], grids: Sequence[Tiling], image_token: int
    ) -> Int[np.ndarray, "3 n"]:
        """Plain positions: these decoders read images as they read words."""
        return np.broadcast_to(np.arange(len(ids), dtype=np.int32), (3, len(ids))).copy()

    def cut(self, image: PIL.Image.Image, grid: Tiling) -> UInt8[np.ndarray, "tokens 1 values"]:
        """Patches of every view of an upright RGB image, one view after the other."""
        size = self.image_size
        if self.mode == "crop":
            views = [self._cropped(image)]
        elif self.mode == "letterbox":
            views = [self._resized(padded_square(image, self.background), (size, size))]
        else:
            views = [self._resized(image, (size, size))]
        if grid.rows:
            canvas = self._in_tiles(image, grid)
            views += [
                canvas.crop((left, top, left + size, top + size))
                for top in range(0, grid.rows * size, size)
                for left in range(0, grid.columns * size, size)
            ]
        covered = self.side * self.patch_size  # a strided convolution leaves out what fills no patch
        views = [view.crop((0, 0, covered, covered)) if covered < size else view for view in views]
        return np.concatenate([patchify(view, covered, covered, self.patch_size, 1) for view in views])

    def _resized(self, image: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
        """To (height, width); what has that size already is left alone."""
        return image if image.size == size[::-1] else image.resize(size[::-1], self.resample)

    def _cropped(self, image: PIL.Image.Image) -> PIL.Image.Image:
        edge, (width, height) = self.shortest_edge or self.image_size, image.size
        short, long = sorted((width, height))
        long = int(edge * long / short)
        image = self._resized(image, (edge, long) if height <= width else (long, edge))
        left, top = (image.size[0] - self.image_size) // 2, (image.size[1] - self.image_size) // 2
        return image.crop((left, top, left + self.image_size, top + self.image_size))

    def _in_tiles(self, image: PIL.Image.Image, grid: Tiling) -> PIL.Image.Image:
        """The image as large as it fits into the tiles, on black."""
        (width, height), tall, wide = image.size, grid.rows * self.image_size, grid.columns * self.image_size
        if wide / width < tall / height:
            size = min(math.ceil(height * (wide / width)), tall), wide
        else:
            size = tall, min(math.ceil(width * (tall / height)), wide)
        canvas = PIL.Image.new("RGB", (wide, tall))
        canvas.paste(self._resized(image, size), ((wide - size[1]) // 2, (tall - size[0]) // 2))
        return canvas

    def _whole(self, size: tuple[int, int]) -> Tiling:
        rows, columns = size[0] // self.image_size, size[1] // self.image_size
        return Tiling(rows, columns, rows * self.side, columns * self.side)

    def to_json(self, processor_class: str = "") -> dict[str, Any]:
        """`preprocessor_config.json` of these rules, which name no class of a processor.

        `background` stands in it only where transformers has another.
        """
        size = self.image_size
        square, edge = {"height": size, "width": size}, {"shortest_edge": self.shortest_edge or size}
        processor: dict[str, Any] = {
            "do_convert_rgb": True,
            "do_resize": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": self.resample,
        }
        if self.mode == "squash":
            kind = "ViTImageProcessor" if self.resample == 2 else "SiglipImageProcessor"
            return processor | {"image_processor_type": kind, "size": square}
        processor |= {"size": edge, "crop_size": square, "do_center_crop": True}
        if self.mode == "crop":
            return processor | {"image_processor_type": "CLIPImageProcessor"}
        if self.mode == "anyres":
            pinpoints = [list(one) for one in self.pinpoints]
            return processor | {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": pinpoints}
        own = {} if self.background == self.mean_colour else {"background": list(self.background)}
        return processor | {"image_processor_type": "LlavaImageProcessor", "do_pad": True, **own}

    def errors(self) -> list[str]:
        """What of these settings cannot be used, in words."""
        errors = []
        if self.mode not in MODES:
            errors.append(f"images {self.mode!r}: known are {', '.join(MODES)}")
        if (self.mode == "anyres") != bool(self.pinpoints):
            errors.append(
                f"images {self.mode!r} with sizes of tiles {list(self.pinpoints)}: anyres wants some, others none"
            )
        odd = [
            size for size in self.pinpoints if len(size) != 2 or any(one < 1 or one % self.image_size for one in size)
        ]
        if odd:
            errors.append(f"sizes of tiles {odd} are no multiples of a view of {self.image_size} pixels")
        if self.mode == "anyres" and self.keep_class and self.class_token:
            errors.append("tiles leave no place for class tokens; drop the class token")
        if self.shortest_edge and self.shortest_edge < self.image_size:
            errors.append(f"shortest edge {self.shortest_edge} is below a view's {self.image_size} pixels")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            errors.append("image_mean and image_std must hold three numbers, the latter above 0")
        return errors


def _kind(processor: Mapping[str, Any]) -> str:
    named = processor.get("image_processor_type") or processor.get("feature_extractor_type") or "ViTImageProcessor"
    kind = next(
        (kind for kind in _KINDS if named.startswith((f"{kind}ImageProcessor", f"{kind}FeatureExtractor"))), None
    )
    if kind is None:
        raise ValueError(
            f"image_processor_type is {named!r}; known are {', '.join(f'{kind}ImageProcessor' for kind in _KINDS)}"
        )
    return kind


def _not_computed(processor: Mapping[str, Any], kind: str) -> list[str]:
    # A file may say of what its kind does not do that it is not done.
    unused = {key for key in ("do_center_crop", "do_pad") if processor.get(key) is False and key not in _KINDS[kind]}
    unused |= {"crop_size"} if "do_center_crop" in unused else set()
    settings = {key: value for key, value in processor.items() if key not in unused}
    found = file.errors(settings, _KINDS[kind])
    for key in ("do_rescale", "do_normalize"):
        if not processor.get(key, True):
            found.append(f"{key} is {json.dumps(processor[key])}; encoders see rescaled and normalised pixels only")
    if isinstance(factor := processor.get("rescale_factor"), int | float) and abs(factor - 1 / 255) > 1e-9:
        found.append(f"rescale_factor {factor} is not 1/255")
    return found


def _read(
    processor: Mapping[str, Any], kind: str, image_size: int, patch_size: int, class_token: bool, keep_class: bool
) -> FixedViews:
    size, crop = processor.get("size", 224), processor.get("crop_size")
    cropped = kind in ("CLIP", "Llava", "LlavaNext") and processor.get("do_center_crop", True)
    if isinstance(size, int):  # of older files
        size = {"shortest_edge": size} if cropped else {"height": size, "width": size}
    edge = size.get("shortest_edge")
    if cropped:
        crop = crop or _CROP
        view = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        if not edge and (size["height"], size["width"]) != view:
            raise ValueError(f"size {dict(size)} is not the crop's; wanted a shortest_edge, or the size of a view")
    else:
        if edge and kind != "LlavaNext" and not processor.get("do_pad"):
            raise ValueError(
                f"size is {dict(size)} and nothing is cropped, so images would not be square; wanted height and width"
            )
        view = (edge, edge) if edge else (size["height"], size["width"])
    if view != (image_size, image_size):
        raise ValueError(f"views are {view[0]} × {view[1]} pixels, config.json has image_size {image_size}")
    mean, std = file.normalisation(processor, *(_CLIP if kind in ("CLIP", "Llava", "LlavaNext") else _HALF))
    settings = FixedViews(
        image_size=image_size,
        patch_size=patch_size,
        class_token=class_token,
        keep_class=keep_class,
        mode="squash",
        mean=mean,
        std=std,
        resample=processor.get("resample", 2 if kind == "ViT" else 3),
    )
    if kind == "LlavaNext":
        pinpoints = tuple(tuple(one) for one in processor.get("image_grid_pinpoints") or ())
        if edge not in (None, image_size):
            raise ValueError(f"size {edge} differs from the view's {image_size}")
        return dataclasses.replace(settings, mode="anyres", pinpoints=pinpoints)
    if kind == "Llava" and processor.get("do_pad", False):
        if edge not in (None, image_size):
            raise ValueError(f"size {edge} differs from the crop of {image_size}, and padded images are not cropped")
        colour = tuple(processor.get("background") or settings.mean_colour)
        return dataclasses.replace(settings, mode="letterbox", background=colour)
    if cropped and edge:
        return dataclasses.replace(settings, mode="crop", shortest_edge=0 if edge == image_size else edge)
    return settings
