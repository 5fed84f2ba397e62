"""Blocks of neighbouring visual tokens, which `pool` makes one token each; worked out on the host from the grid."""

import math

import numpy as np
from jaxtyping import Bool, Int

from vlm_jax.processing.vision_layout import VisionLayout


def pooled_grid(rows: int, columns: int, keep: int) -> tuple[int, int]:
    """Rows and columns of blocks: `keep` blocks at most, in about the shape of the grid. Half of each at a quarter."""
    ideal = rows * math.sqrt(keep / (rows * columns))
    # A hair below a whole number is that number: roots are rounded.
    options = {math.floor(ideal + 1e-9), math.ceil(ideal - 1e-9)}
    down = {min(max(option, 1), rows, keep) for option in options}
    best = max(sorted(down), key=lambda one: one * min(columns, keep // one))
    return best, min(columns, keep // best)


def blocks(layout: VisionLayout, keep: int) -> tuple[Int[np.ndarray, " tokens"], Bool[np.ndarray, " tokens"]]:
    """In which block each token of an image is, from 1 (0: in none, it stays as it is), and which is its centre.

    The views of an image are cut each by itself. The token at the centre of a block, of four the upper left, stands for
    it.

    Args:
      keep: blocks at most, of at least one a view.
    """
    slots = np.maximum(layout.slot_of_token, 0)
    view = np.where(layout.optional, layout.image_ids[slots], 0)
    coords = layout.coords[slots, 0]
    block, centre = np.zeros(len(view), np.int32), np.zeros(len(view), bool)
    total = int(np.count_nonzero(view))
    for one in np.unique(view[view > 0]):
        mine = np.flatnonzero(view == one)
        _, row = np.unique(coords[mine, 0], return_inverse=True)
        _, column = np.unique(coords[mine, 1], return_inverse=True)
        size = int(row.max()) + 1, int(column.max()) + 1
        count = max(1, keep * len(mine) // total)
        parts = pooled_grid(*size, min(count, len(mine)))
        numbers = [place * part // length for place, part, length in zip((row, column), parts, size, strict=True)]
        block[mine] = block.max() + 1 + numbers[0] * parts[1] + numbers[1]
        middles = [_middles(length, part) for length, part in zip(size, parts, strict=True)]
        centre[mine] = (row == middles[0][numbers[0]]) & (column == middles[1][numbers[1]])
    return block, centre


def _middles(length: int, parts: int) -> Int[np.ndarray, " parts"]:
    """The middle one of each part's places, where place i of `length` is in part i · parts // length."""
    part = np.arange(length) * parts // length
    first = np.searchsorted(part, np.arange(parts))
    last = np.searchsorted(part, np.arange(parts), side="right") - 1
    return (first + last) // 2
