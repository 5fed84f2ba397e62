"""Examples laid into rows of fixed shape: the arrays that a compiled step is fed.

A row holds whole examples side by side. Segment ids keep their tokens apart, image ids and window ids their patches;
0 is padding everywhere. Which examples share a row is decided elsewhere (`data_pipeline.packing` for training, one
example a row at inference).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from vlm_jax.processing.vision_layout import VisionLayout

ROW_END = -2
"""In `visual_index`: the learned embedding that ends a row of tiles. Text is -1."""

VISUAL = ("patches", "patch_coords", "image_ids", "window_ids")
"""What of a batch is fed to the tower; without pictures a batch may leave it out, and the tower does not run."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One picture of an example: its patches by merged unit, and its layout in the tower."""

    patches: UInt8[np.ndarray, "units merge_unit values"]
    grid: tuple[int, ...]
    """How it was cut: merged units (rows, columns), or a `views.Tiling`."""
    layout: VisionLayout


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A conversation, processed."""

    input_ids: Int[np.ndarray, " n"]
    positions: Int[np.ndarray, "3 n"]
    weights: Float32[np.ndarray, " n"]
    """What each token weighs in the loss: those of the assistant's words and the end of their turn 1, or what their
    turn was given; all others 0."""
    pictures: tuple[Picture, ...]
    image_token: int

    @property
    def supervised(self) -> Bool[np.ndarray, " n"]:
        """Tokens to be predicted in training."""
        return self.weights > 0

    @property
    def size(self) -> "Size":
        merge_unit = self.pictures[0].patches.shape[1] if self.pictures else 0
        slots = sum(len(picture.layout.units) for picture in self.pictures)
        return Size(len(self.input_ids), slots * merge_unit, int(np.count_nonzero(self.weights)))


@dataclasses.dataclass(frozen=True, order=True)
class Size:
    """The three lengths a row is packed by: tokens, patch slots (window padding included), supervised positions."""

    tokens: int
    patches: int
    supervised: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.tokens + other.tokens, self.patches + other.patches, self.supervised + other.supervised)

    def fits(self, capacity: "Size") -> bool:
        return (
            self.tokens <= capacity.tokens
            and self.patches <= capacity.patches
            and self.supervised <= capacity.supervised
        )


def assemble(
    examples: Sequence[Example], capacity: Size, *, patch_values: int, merge_unit: int
) -> dict[str, np.ndarray]:
    """One row.

    Returns (T, P, S = capacity):
      tokens, segment_ids [T]; positions [3, T];
      visual_index [T]: which merged unit slot of the row a token takes its embedding from, -1 for text, `ROW_END`;
      loss_index, loss_targets [S]: hidden state `loss_index` predicts token `loss_targets`, with loss_weights [S];
      patches uint8 [P, patch_values], patch_coords [P, 2], image_ids [P], window_ids [P].
    """
    needed = sum((example.size for example in examples), Size(0, 0, 0))
    if not needed.fits(capacity):
        raise ValueError(f"examples of {needed} do not fit a row of {capacity}")
    tokens, slots, supervised = capacity.tokens, capacity.patches // merge_unit, capacity.supervised
    row = {
        "tokens": np.zeros(tokens, np.int32),
        "segment_ids": np.zeros(tokens, np.int32),
        "positions": np.zeros((3, tokens), np.int32),
        "visual_index": np.full(tokens, -1, np.int32),
        "loss_index": np.zeros(supervised, np.int32),
        "loss_targets": np.zeros(supervised, np.int32),
        "loss_weights": np.zeros(supervised, np.float32),
        "patches": np.zeros((slots, merge_unit, patch_values), np.uint8),
        "patch_coords": np.zeros((slots, merge_unit, 2), np.int32),
        "image_ids": np.zeros((slots, merge_unit), np.int32),
        "window_ids": np.zeros((slots, merge_unit), np.int32),
    }
    token, slot, target, image = 0, 0, 0, 0
    for segment, example in enumerate(examples, start=1):
        here = slice(token, token + len(example.input_ids))
        row["tokens"][here] = example.input_ids
        row["segment_ids"][here] = segment
        row["positions"][:, here] = example.positions

        # A token is predicted from the one before it, so the first token of an example is never a target.
        places = np.flatnonzero(example.supervised[1:])
        there = slice(target, target + len(places))
        row["loss_index"][there] = token + places
        row["loss_targets"][there] = example.input_ids[places + 1]
        row["loss_weights"][there] = example.weights[places + 1]

        visual = token + np.flatnonzero(example.input_ids == example.image_token)
        for picture in example.pictures:
            layout, units = picture.layout, picture.layout.units
            those = slice(slot, slot + len(units))
            filled = units >= 0
            row["patches"][those][filled] = picture.patches[units[filled]]
            row["patch_coords"][those] = layout.coords
            row["image_ids"][those] = np.where(layout.image_ids > 0, image + layout.image_ids, 0)[:, None]
            row["window_ids"][those] = layout.window_ids[:, None]
            mine, visual = np.split(visual, [len(layout.slot_of_token)])
            taken = layout.slot_of_token
            row["visual_index"][mine] = np.where(taken >= 0, slot + taken, taken)
            image += int(layout.image_ids.max())
            slot += len(units)
        token, target = here.stop, there.stop
    for name in ("patches", "patch_coords", "image_ids", "window_ids"):
        row[name] = row[name].reshape(slots * merge_unit, *row[name].shape[2:])
    return row


def batch_shapes(
    rows: int, size: Size, *, patch_values: int, merge_unit: int
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """{name: (shape, dtype)} of so many rows of a size, over all hosts: what a step is compiled for."""
    row = assemble([], size, patch_values=patch_values, merge_unit=merge_unit)
    return {name: ((rows, *array.shape), array.dtype) for name, array in row.items()}


def stack(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows of one shape become a batch: every array gains a leading [B]."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
