"""Examples laid into rows of fixed shape: the arrays that a compiled step is fed.

A row holds whole examples side by side. Segment ids keep their tokens apart, image ids and window ids their patches;
0 is padding everywhere. Which examples share a row is decided elsewhere (`data_pipeline.packing` for training, one
example a row at inference).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from vlm_jax.processing.vision_layout import VisionLayout

ROW_END = -2
"""In `visual_index`: the learned embedding that ends a row of tiles. Text is -1."""


@dataclasses.dataclass(frozen=True, eq=False)
class PatchedImage:
    """One image of an example: its patches by merged unit, and its layout in the tower."""

    patches: UInt8[np.ndarray, "units patches_per_token values"]
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
    images: tuple[PatchedImage, ...]
    image_token: int

    @property
    def supervised(self) -> Bool[np.ndarray, " n"]:
        """Tokens to be predicted in training."""
        return self.weights > 0

    @property
    def size(self) -> "Size":
        patches_per_token = self.images[0].patches.shape[1] if self.images else 0
        slots = sum(len(image.layout.units) for image in self.images)
        return Size(len(self.input_ids), slots * patches_per_token, int(np.count_nonzero(self.weights)))


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


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one shape, as a compiled step is fed them: numpy arrays on the host, JAX's on devices.

    A pytree (`vlm_jax.models.vlm` registers it). One row alone has no leading [B]. T, P, S are its tokens, patch slots
    and supervised positions (`Size`); 0 is padding everywhere but in `visual_index`.

    Attributes:
      tokens, segment_ids: int32 [B, T]; the examples of a row are its segments 1, 2, ….
      positions: int32 [B, 3, T] of M-RoPE: time, row, column.
      visual_index: int32 [B, T]: the visual embedding of the row that a token takes, -1 for text, or `ROW_END`.
      loss_index, loss_targets: int32 [B, S]: hidden state `loss_index` predicts token `loss_targets`.
      loss_weights: float32 [B, S]: what that counts in the loss.
      patches: uint8 [B, P, patch_dim]: raw pixels, ordered channel, row, column.
      patch_coords: int32 [B, P, 2]: row and column of a patch in its image.
      image_ids, window_ids: int32 [B, P]: the image of the row, and the attention window of its block, that a slot is
        of.

    Without images the last four may be None: then the tower does not run.
    """

    tokens: Int[Any, "*b t"]
    segment_ids: Int[Any, "*b t"]
    positions: Int[Any, "*b 3 t"]
    visual_index: Int[Any, "*b t"]
    loss_index: Int[Any, "*b s"]
    loss_targets: Int[Any, "*b s"]
    loss_weights: Float32[Any, "*b s"]
    patches: UInt8[Any, "*b p v"] | None
    patch_coords: Int[Any, "*b p 2"] | None
    image_ids: Int[Any, "*b p"] | None
    window_ids: Int[Any, "*b p"] | None

    def items(self) -> Iterator[tuple[str, Any]]:
        """(name, array) of those that are there."""
        named = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return ((name, array) for name, array in named if array is not None)

    @property
    def shape(self) -> tuple[int, "Size"]:
        """Rows, and the size of each: what tells compiled programs apart."""
        patches = 0 if self.patches is None else self.patches.shape[-2]
        return self.tokens.shape[0], Size(self.tokens.shape[-1], patches, self.loss_index.shape[-1])

    @classmethod
    def unchecked(cls, leaves: Iterable[Any]) -> "Batch":
        """With anything in the place of its arrays (shardings, say), in the order of the fields."""
        batch = object.__new__(cls)
        for field, leaf in zip(dataclasses.fields(cls), leaves, strict=True):
            object.__setattr__(batch, field.name, leaf)
        return batch

    def without_images(self) -> "Batch":
        return dataclasses.replace(self, patches=None, patch_coords=None, image_ids=None, window_ids=None)


@dataclasses.dataclass(frozen=True)
class RowSpec:
    """The shape of a row.

    Attributes:
      patch_dim: pixel values of a patch.
      patches_per_token: patches that become one visual token; a row has a whole number of such groups.
    """

    size: Size
    patch_dim: int
    patches_per_token: int

    def empty(self) -> Batch:
        """One row of padding alone, to be filled."""
        size = self.size

        def zeros(*shape: int, dtype=np.int32) -> np.ndarray:
            return np.zeros(shape, dtype)

        return Batch(
            tokens=zeros(size.tokens),
            segment_ids=zeros(size.tokens),
            positions=zeros(3, size.tokens),
            visual_index=np.full(size.tokens, -1, np.int32),
            loss_index=zeros(size.supervised),
            loss_targets=zeros(size.supervised),
            loss_weights=zeros(size.supervised, dtype=np.float32),
            patches=zeros(size.patches, self.patch_dim, dtype=np.uint8),
            patch_coords=zeros(size.patches, 2),
            image_ids=zeros(size.patches),
            window_ids=zeros(size.patches),
        )

    def batch(self, rows: int) -> Batch:
        """So many rows of padding, in the memory of one: what a step is compiled for."""
        row = self.empty()
        return Batch(**{name: np.broadcast_to(array, (rows, *array.shape)) for name, array in row.items()})


def assemble(examples: Sequence[Example], spec: RowSpec) -> Batch:
    """One row with these examples, one after the other.

    Raises:
      ValueError: they do not fit.
    """
    needed = sum((example.size for example in examples), Size(0, 0, 0))
    if not needed.fits(spec.size):
        raise ValueError(f"examples of {needed} do not fit a row of {spec.size}")
    row = spec.empty()
    token = target = 0
    slots = _Slots(row, spec.patches_per_token)
    for segment, example in enumerate(examples, start=1):
        here = slice(token, token + len(example.input_ids))
        row.tokens[here] = example.input_ids
        row.segment_ids[here] = segment
        row.positions[:, here] = example.positions

        # A token is predicted from the one before it, so the first token of an example is never a target.
        places = np.flatnonzero(example.supervised[1:])
        there = slice(target, target + len(places))
        row.loss_index[there] = token + places
        row.loss_targets[there] = example.input_ids[places + 1]
        row.loss_weights[there] = example.weights[places + 1]

        visual = token + np.flatnonzero(example.input_ids == example.image_token)
        for image in example.images:
            mine, visual = np.split(visual, [len(image.layout.slot_of_token)])
            row.visual_index[mine] = slots.add(image)
        token, target = here.stop, there.stop
    return row


class _Slots:
    """The patch slots of a row, filled image by image. A slot here is a group of patches that become one token."""

    def __init__(self, row: Batch, patches_per_token: int):
        def grouped(array: Any) -> np.ndarray:
            return array.reshape(-1, patches_per_token, *array.shape[1:])

        self._patches, self._coords = grouped(row.patches), grouped(row.patch_coords)
        self._image_ids, self._window_ids = grouped(row.image_ids), grouped(row.window_ids)
        self._next = self._images = 0

    def add(self, image: PatchedImage) -> Int[np.ndarray, " tokens"]:
        """Lays an image into the next slots; which slot each of its tokens takes, or `ROW_END`."""
        layout, units = image.layout, image.layout.units
        those = slice(self._next, self._next + len(units))
        filled = units >= 0
        self._patches[those][filled] = image.patches[units[filled]]
        self._coords[those] = layout.coords
        self._image_ids[those] = np.where(layout.image_ids > 0, self._images + layout.image_ids, 0)[:, None]
        self._window_ids[those] = layout.window_ids[:, None]
        slots = np.where(layout.slot_of_token >= 0, self._next + layout.slot_of_token, layout.slot_of_token)
        self._images += int(layout.image_ids.max())
        self._next += len(units)
        return slots


def stack(rows: Sequence[Batch]) -> Batch:
    """Rows of one shape become a batch: every array gains a leading [B]."""
    return Batch(**{name: np.stack([getattr(row, name) for row in rows]) for name, _ in rows[0].items()})
