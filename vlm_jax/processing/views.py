"""Pictures for encoders of fixed resolution: square views, cut into patches, and which tokens they become.

  squash     the whole picture, its sides scaled apart (ViT's and SigLIP's processors)
  crop       the shorter side scaled to the view, the middle cut out (CLIP's)
  letterbox  padded to a square, then scaled: nothing is cut, nothing distorted (LLaVA-1.5's, with the mean colour)
  anyres     the whole picture squashed, and beside it tiles of the picture in the best fitting of a few sizes, each row
             of their patches ended by a separator (LLaVA-NeXT)

Pixels are those of transformers' Pillow processors, but for transparency (laid on white) and turned photographs (turned
upright): see `images`.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import Int, UInt8

from vlm_jax.errors import InputError
from vlm_jax.processing.images import MAX_ASPECT, patchify
from vlm_jax.processing.rows import ROW_END
from vlm_jax.processing.vision_layout import VisionLayout

MODES = ("squash", "crop", "letterbox", "anyres")


class Tiling(NamedTuple):
    """How a picture was cut: tiles (rows, columns), 0 for the whole picture alone, and how many rows and columns of the
    tiles' patches show the picture and not its padding."""

    rows: int = 0
    columns: int = 0
    tall: int = 0
    wide: int = 0


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How pictures become views.

    Attributes:
      image_size, patch_size: pixels along the side of a view, and of a patch.
      class_token: whether a slot before the patches belongs to a class token; keep_class: whether it is a visual token.
      mode: of `MODES`.
      resample: Pillow's filter, of `image_processor_file.RESAMPLING`.
      background: colour beside a letter-boxed picture.
      shortest_edge: what the shorter side is scaled to before the middle is cut out; 0: `image_size`.
      pinpoints: sizes (height, width) in pixels that a picture is laid into in mode anyres.
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

    @property
    def merge_size(self) -> int:
        return 1

    @property
    def side(self) -> int:
        return self.image_size // self.patch_size

    @property
    def budget(self) -> tuple[int, int]:
        """The fewest and the most visual tokens a picture can take."""
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

    def with_budget(self, visual_tokens: tuple[int, int] | int | None) -> "ViewSettings":
        """At most so many visual tokens a picture: of the sizes for tiles, those that keep to it.

        Raises:
          InputError: a view alone has more.
        """
        if visual_tokens is None:
            return self
        _, high = (1, visual_tokens) if isinstance(visual_tokens, int) else visual_tokens
        kept = tuple(size for size in self.pinpoints if self.tokens(self._whole(size)) <= high)
        if self.pinpoints and kept:
            return dataclasses.replace(self, pinpoints=kept)
        if high < (least := self.budget[0]):
            raise InputError(
                f"at most {high} visual tokens a picture, and this encoder makes {least} of the smallest; allow at "
                f"least {least} (model.max_visual_tokens)"
            )
        return self

    def grid(self, width: int, height: int) -> Tiling:
        """How a picture of this size in pixels is cut.

        Raises:
          InputError: an aspect ratio above 200, or, letter-boxed, a square that is larger than pictures may be.
        """
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise InputError(f"aspect ratio {max(width, height) / min(width, height):.0f} is above {MAX_ASPECT}")
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
        """Visual tokens of a picture, row separators included."""
        view = self.side**2 + (self.class_token and self.keep_class)
        return view + grid.tall * (grid.wide + 1)

    def layout(self, grid: Tiling, window_units: int = 1) -> VisionLayout:
        """Where the patches of a picture lie in the tower, and which of them each token takes."""
        return _layout(grid, self.side, self.class_token, self.keep_class)

    def positions(
        self, ids: Int[np.ndarray, " n"], grids: Sequence[Tiling], image_token: int
    ) -> Int[np.ndarray, "3 n"]:
        """Plain positions: these decoders read pictures as they read words."""
        return np.broadcast_to(np.arange(len(ids), dtype=np.int32), (3, len(ids))).copy()

    def cut(self, image: PIL.Image.Image, grid: Tiling) -> UInt8[np.ndarray, "units 1 values"]:
        """Patches of every view of an upright RGB picture, one view after the other."""
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
        seen = self.side * self.patch_size  # a strided convolution leaves out what fills no patch
        views = [view.crop((0, 0, seen, seen)) if seen < size else view for view in views]
        return np.concatenate([patchify(view, seen, seen, self.patch_size, 1) for view in views])

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
        """The picture as large as it fits into the tiles, on black."""
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

    def faults(self) -> list[str]:
        """What of these settings cannot be used, in words."""
        faults = []
        if self.mode not in MODES:
            faults.append(f"pictures {self.mode!r}: known are {', '.join(MODES)}")
        if (self.mode == "anyres") != bool(self.pinpoints):
            faults.append(
                f"pictures {self.mode!r} with sizes of tiles {list(self.pinpoints)}: anyres wants some, others none"
            )
        odd = [
            size for size in self.pinpoints if len(size) != 2 or any(one < 1 or one % self.image_size for one in size)
        ]
        if odd:
            faults.append(f"sizes of tiles {odd} are no multiples of a view of {self.image_size} pixels")
        if self.mode == "anyres" and self.keep_class and self.class_token:
            faults.append("tiles leave no place for class tokens; drop the class token")
        if self.shortest_edge and self.shortest_edge < self.image_size:
            faults.append(f"shortest edge {self.shortest_edge} is below a view's {self.image_size} pixels")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            faults.append("image_mean and image_std must hold three numbers, the latter above 0")
        return faults


def padded_square(image: PIL.Image.Image, colour: Sequence[int]) -> PIL.Image.Image:
    """The picture in the middle of a square as wide as its longer side."""
    width, height = image.size
    side = max(width, height)
    if width == height:
        return image
    canvas = PIL.Image.new("RGB", (side, side), tuple(colour))
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    return canvas


def best_size(given: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Of sizes (height, width), the one that shows most of a picture's pixels, then that with the least left empty."""

    def worth(size: tuple[int, int]) -> tuple[int, int]:
        scale = min(size[1] / given[1], size[0] / given[0])
        shown = min(int(given[1] * scale) * int(given[0] * scale), given[0] * given[1])
        return shown, shown - size[0] * size[1]

    return max(sizes, key=worth)


def tile_sizes(image_size: int, most: int) -> tuple[tuple[int, int], ...]:
    """All sizes (height, width) of at most so many tiles, a single one left out."""
    counts = range(1, most + 1)
    return tuple(
        (rows * image_size, columns * image_size) for rows in counts for columns in counts if 1 < rows * columns <= most
    )


@functools.lru_cache(maxsize=4096)
def _layout(grid: Tiling, side: int, class_token: bool, keep_class: bool) -> VisionLayout:
    views, patches, lead = 1 + grid.rows * grid.columns, side**2, int(class_token)
    slots = patches + lead
    units = np.full((views, slots), -1, np.int32)
    units[:, lead:] = np.arange(views * patches).reshape(views, patches)
    coords = np.full((views, slots, 2), -1, np.int32)
    coords[:, lead:] = np.stack(np.divmod(np.arange(patches), side), axis=-1)
    tokens = [np.arange(0 if keep_class else lead, slots)]
    if grid.rows:
        # [rows of patches, columns of patches] of all tiles together: the slot of each.
        tiles = np.arange(1, views)[:, None] * slots + lead + np.arange(patches)
        whole = tiles.reshape(grid.rows, grid.columns, side, side).swapaxes(1, 2)
        whole = whole.reshape(grid.rows * side, grid.columns * side)
        top, left = (whole.shape[0] - grid.tall) // 2, (whole.shape[1] - grid.wide) // 2
        seen = whole[top : top + grid.tall, left : left + grid.wide]
        tokens.append(np.pad(seen, ((0, 0), (0, 1)), constant_values=ROW_END).ravel())
    layout = VisionLayout(
        units.ravel(),
        np.ones(views * slots, np.int32),
        np.concatenate(tokens).astype(np.int32),
        coords.reshape(-1, 1, 2),
        np.repeat(np.arange(1, views + 1, dtype=np.int32), slots),
    )
    for field in dataclasses.fields(layout):
        getattr(layout, field.name).setflags(write=False)  # the cache hands the same arrays to everyone
    return layout
