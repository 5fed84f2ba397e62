"""Blocks of neighbouring visual tokens, which `pool` makes one token each; worked out on the host from the grid."""

import dataclasses
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


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """How the tokens of an image are pooled.

    Attributes:
      number: in which block each is, from 1; 0: in none, it stays as it is.
      centre: whether it is the one that stands for its block.
      quadrant: of its block: upper left 0, upper right 1, lower left 2, lower right 3.
    """

    number: Int[np.ndarray, " tokens"]
    centre: Bool[np.ndarray, " tokens"]
    quadrant: Int[np.ndarray, " tokens"]


def blocks(layout: VisionLayout, keep: int) -> Blocks:
    """The blocks of an image.

    The views of an image are cut each by itself. The token at the centre of a block, of four the upper left, stands for
    it.

    Args:
      keep: blocks at most, of at least one a view.
    """
    slots = np.maximum(layout.slot_of_token, 0)
    view = np.where(layout.optional, layout.image_ids[slots], 0)
    coords = layout.coords[slots, 0]
    block, centre, quadrant = (np.zeros(len(view), kind) for kind in (np.int32, bool, np.int32))
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
        down, across = (middle[number] for middle, number in zip(middles, numbers, strict=True))
        centre[mine] = (row == down) & (column == across)
        quadrant[mine] = 2 * (row > down) + (column > across)
    return Blocks(block, centre, quadrant)


def _middles(length: int, parts: int) -> Int[np.ndarray, " parts"]:
    """The middle one of each part's places, where place i of `length` is in part i · parts // length."""
    part = np.arange(length) * parts // length
    first = np.searchsorted(part, np.arange(parts))
    last = np.searchsorted(part, np.arange(parts), side="right") - 1
    return (first + last) // 2
