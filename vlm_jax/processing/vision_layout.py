"""Where each visual token of an image lies in the tower: attention windows laid into blocks of one full window.

A full window takes a block of its own; the partial windows at the right and bottom edge share blocks, told apart by
window ids. One window a block would waste 15–33 % of the slots on photographs; sharing wastes a few.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Int


@dataclasses.dataclass(frozen=True, eq=False)
class VisionLayout:
    """One image's visual tokens in tower order; `blocks · block_tokens` slots."""

    token_of_slot: Int[np.ndarray, " slots"]
    """Which visual token (row-major in the image's grid) lies in a slot, -1 for padding."""
    window_ids: Int[np.ndarray, " slots"]
    """Which window of its block a slot belongs to, from 1; 0 for padding."""
    slot_of_token: Int[np.ndarray, " tokens"]
    """Where each visual token's embedding lies (the inverse of `token_of_slot`); `rows.ROW_END`: a row separator."""
    coords: Int[np.ndarray, "slots patches_per_token 2"]
    """Row and column, in patches, of each patch of a slot; 0 for padding, -1 for a class token."""
    image_ids: Int[np.ndarray, " slots"]
    """Which image of the tower, from 1, a slot belongs to (an image may be several views); 0 for padding."""

    @property
    def optional(self) -> Bool[np.ndarray, " tokens"]:
        """Which tokens may be left out: those of patches, not class tokens and the ends of rows."""
        patch = self.coords[np.maximum(self.slot_of_token, 0), 0, 0] >= 0
        return patch & (self.slot_of_token >= 0)


@functools.lru_cache(maxsize=4096)
def vision_layout(rows: int, columns: int, window_side: int, merge_size: int) -> VisionLayout:
    """Lays out an image of rows × columns visual tokens; cached, since images share sizes."""
    grid = np.arange(rows * columns).reshape(rows, columns)
    windows = [
        grid[top : top + window_side, left : left + window_side].ravel()
        for top in range(0, rows, window_side)
        for left in range(0, columns, window_side)
    ]
    capacity = window_side**2
    # First fit, longest first: stable, so that equal images always get equal layouts.
    blocks: list[list[np.ndarray]] = []
    free: list[int] = []
    first_open = 0
    for window in sorted(windows, key=len, reverse=True):
        for index in range(first_open, len(blocks)):
            if free[index] >= len(window):
                break
        else:
            index = len(blocks)
            blocks.append([])
            free.append(capacity)
        blocks[index].append(window)
        free[index] -= len(window)
        while first_open < len(blocks) and free[first_open] == 0:
            first_open += 1

    token_of_slot = np.full((len(blocks), capacity), -1, np.int32)
    window_ids = np.zeros((len(blocks), capacity), np.int32)
    for index, members in enumerate(blocks):
        filled = np.concatenate(members)
        token_of_slot[index, : len(filled)] = filled
        window_ids[index, : len(filled)] = np.repeat(np.arange(1, len(members) + 1), [len(m) for m in members])
    token_of_slot = token_of_slot.ravel()
    slot_of_token = np.empty(rows * columns, np.int32)
    slot_of_token[token_of_slot[token_of_slot >= 0]] = np.flatnonzero(token_of_slot >= 0)

    row, column = np.divmod(np.maximum(token_of_slot, 0), columns)
    inner = np.stack(np.divmod(np.arange(merge_size**2), merge_size), axis=-1)
    coords = np.stack([row, column], axis=-1)[:, None, :] * merge_size + inner
    coords = np.where(token_of_slot[:, None, None] >= 0, coords, 0).astype(np.int32)
    layout = VisionLayout(
        token_of_slot, window_ids.ravel(), slot_of_token, coords, (token_of_slot >= 0).astype(np.int32)
    )
    for field in dataclasses.fields(layout):
        getattr(layout, field.name).setflags(write=False)  # the cache hands the same arrays to everyone
    return layout
