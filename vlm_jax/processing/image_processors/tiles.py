"""Square views of an image: how many tiles show it, of which size, and which token takes which of their patches."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image

from vlm_jax.processing.rows import ROW_END
from vlm_jax.processing.vision_layout import VisionLayout


class Tiling(NamedTuple):
    """How an image was cut: tiles (rows, columns), 0 for the whole image alone, and how many rows and columns of the
    tiles' patches show the image and not its padding."""

    rows: int = 0
    columns: int = 0
    tall: int = 0
    wide: int = 0


def padded_square(image: PIL.Image.Image, colour: Sequence[int]) -> PIL.Image.Image:
    """The image in the middle of a square as wide as its longer side."""
    width, height = image.size
    side = max(width, height)
    if width == height:
        return image
    canvas = PIL.Image.new("RGB", (side, side), tuple(colour))
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    return canvas


def best_size(image_size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Of sizes (height, width), the one that shows most of an image's pixels, then that with the least left empty."""

    def worth(size: tuple[int, int]) -> tuple[int, int]:
        scale = min(size[1] / image_size[1], size[0] / image_size[0])
        shown = min(int(image_size[1] * scale) * int(image_size[0] * scale), image_size[0] * image_size[1])
        return shown, shown - size[0] * size[1]

    return max(sizes, key=worth)


def tile_sizes(image_size: int, most: int) -> tuple[tuple[int, int], ...]:
    """All sizes (height, width) of at most so many tiles, a single one left out."""
    counts = range(1, most + 1)
    return tuple(
        (rows * image_size, columns * image_size) for rows in counts for columns in counts if 1 < rows * columns <= most
    )


@functools.lru_cache(maxsize=4096)
def layout_of(grid: Tiling, side: int, class_token: bool, keep_class: bool) -> VisionLayout:
    views, patches, lead = 1 + grid.rows * grid.columns, side**2, int(class_token)
    slots = patches + lead
    token_of_slot = np.full((views, slots), -1, np.int32)
    token_of_slot[:, lead:] = np.arange(views * patches).reshape(views, patches)
    coords = np.full((views, slots, 2), -1, np.int32)
    coords[:, lead:] = np.stack(np.divmod(np.arange(patches), side), axis=-1)
    tokens = [np.arange(0 if keep_class else lead, slots)]
    if grid.rows:
        # [rows of patches, columns of patches] of all tiles together: the slot of each.
        tiles = np.arange(1, views)[:, None] * slots + lead + np.arange(patches)
        whole = tiles.reshape(grid.rows, grid.columns, side, side).swapaxes(1, 2)
        whole = whole.reshape(grid.rows * side, grid.columns * side)
        top, left = (whole.shape[0] - grid.tall) // 2, (whole.shape[1] - grid.wide) // 2
        visible = whole[top : top + grid.tall, left : left + grid.wide]
        tokens.append(np.pad(visible, ((0, 0), (0, 1)), constant_values=ROW_END).ravel())
    layout = VisionLayout(
        token_of_slot.ravel(),
        np.ones(views * slots, np.int32),
        np.concatenate(tokens).astype(np.int32),
        coords.reshape(-1, 1, 2),
        np.repeat(np.arange(1, views + 1, dtype=np.int32), slots),
    )
    for field in dataclasses.fields(layout):
        getattr(layout, field.name).setflags(write=False)  # the cache hands the same arrays to everyone
    return layout
