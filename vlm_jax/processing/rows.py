"""Examples laid into rows of fixed shape: the arrays that a compiled step is fed.

A row holds whole examples side by side. Segment ids keep their tokens apart, image ids and window ids their patches;
0 is padding everywhere. Which examples share a row is decided elsewhere (`data_pipeline.packing` for training, one
example a row at inference).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, UInt8

from vlm_jax.processing.example import NOTHING, Example, PatchedImage, Size
from vlm_jax.processing.token_budget import CDPRUNER, POOL_LEARNED, TokenBudget

ROW_END = -2
"""In `visual_index`: the learned embedding that ends a row of tiles. Text is -1."""


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
      method: how the device chooses which visual tokens stay (`models.token_reduction`); "": all in `visual_index` do.
        Else `visual_index` holds only how many, and N = all tokens of all images of the row, in reading order, are in
      candidate_slots: int32 [B, N]: the visual embedding that a token takes, or `ROW_END`; -1 for padding.
      candidate_images: int32 [B, N]: its image in the row, for `pool` its block; 0 where it stays whatever is chosen.
      candidate_keep: int32 [B, N]: how many tokens of that image stay, of those that may be left out.
      candidate_positions: int32 [B, 3, N]: of M-RoPE.
      question_words: int32 [B, T]: the question of the row, from 1, that a token is a word of; 0 for all others.
      candidate_questions: int32 [B, N]: the question that is asked about its image. Both for `cdpruner` alone.
      candidate_quadrants: int32 [B, N]: the quarter of its block that it lies in, for `pool_learned` alone.
      above: where the method leaves tokens out within the decoder, how long rows are above each cut; layer: after which
        layer, where that is a setting (`token_budget.TokenBudget`). Then there are no candidates, but
      cut_images: int32 [B, T]: which image of the row, from 1, a token is of that may be left out; 0 for all others.
      cut_keep: int32 [B, cuts, T]: how many of these tokens of its image stay above each cut.
      cut_queries: int32 [B, T]: the place in the row of the token that they are weighed by.

    Without images those of patches may be None: then the tower does not run. Those of candidates and cuts are None
    where there are none.
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
    candidate_slots: Int[Any, "*b n"] | None = None
    candidate_images: Int[Any, "*b n"] | None = None
    candidate_keep: Int[Any, "*b n"] | None = None
    candidate_positions: Int[Any, "*b 3 n"] | None = None
    question_words: Int[Any, "*b t"] | None = None
    candidate_questions: Int[Any, "*b n"] | None = None
    candidate_quadrants: Int[Any, "*b n"] | None = None
    cut_images: Int[Any, "*b t"] | None = None
    cut_keep: Int[Any, "*b cuts t"] | None = None
    cut_queries: Int[Any, "*b t"] | None = None
    method: str = ""
    layer: int = 0
    above: tuple[int, ...] = ()

    def items(self) -> Iterator[tuple[str, Any]]:
        """(name, array) of those that are there."""
        named = ((name, getattr(self, name)) for name in ARRAYS)
        return ((name, array) for name, array in named if array is not None)

    @property
    def shape(self) -> tuple[int, "Size"]:
        """Rows, and the size of each: what tells compiled programs apart."""
        patches = 0 if self.patches is None else self.patches.shape[-2]
        return self.tokens.shape[0], Size(self.tokens.shape[-1], patches, self.loss_index.shape[-1], self.above)

    @property
    def chooses(self) -> bool:
        """Whether the device chooses visual tokens before the decoder sees any."""
        return bool(self.method) and not self.above

    @classmethod
    def unchecked(cls, leaves: Iterable[Any], static: Sequence[Any] = ("", 0, ())) -> "Batch":
        """With anything in the place of its arrays (shardings, say), in the order of the fields."""
        batch = object.__new__(cls)
        for name, value in zip((*ARRAYS, *STATIC), (*leaves, *static), strict=True):
            object.__setattr__(batch, name, value)
        return batch

    def without_images(self) -> "Batch":
        nothing: dict[str, Any] = dict.fromkeys(OF_IMAGES)
        return dataclasses.replace(self, **nothing, method="", layer=0, above=())


STATIC = ("method", "layer", "above")
"""Fields of a batch that compiled programs are told apart by."""
ARRAYS = tuple(field.name for field in dataclasses.fields(Batch) if field.name not in STATIC)
"""Those that hold arrays, in their order."""
OF_IMAGES = ARRAYS[ARRAYS.index("patches") :]
"""Those that a batch without images has none of."""


@runtime_checkable
class Views(Protocol):
    """What rows must know of how images are seen: an image processor says it, and so do the shapes of a tower."""

    @property
    def patch_dim(self) -> int: ...

    @property
    def patches_per_token(self) -> int: ...

    def most_tokens(self, slots: int) -> int: ...


@dataclasses.dataclass(frozen=True)
class RowSpec:
    """The shape of a row.

    Attributes:
      patch_dim: pixel values of a patch.
      patches_per_token: patches that become one visual token; a row has a whole number of such groups.
      method, layer: as of a `Batch`; above: the size's.
      candidates: visual tokens of which the device chooses, where it does.
    """

    size: Size
    patch_dim: int
    patches_per_token: int
    method: str = ""
    candidates: int = 0
    layer: int = 0

    @classmethod
    def of(cls, size: Size, views: Views, budget: TokenBudget) -> "RowSpec":
        """Of rows of a size, for images that are prepared, or seen, like this, and keep so many of their tokens."""
        spec = cls(size, views.patch_dim, views.patches_per_token)
        if size.above:
            return dataclasses.replace(spec, method=budget.method, layer=budget.layer)
        if not budget.on_device:
            return spec
        candidates = views.most_tokens(size.patches // views.patches_per_token)
        return dataclasses.replace(spec, method=budget.method, candidates=candidates)

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
            method=self.method,
            layer=self.layer,
            above=size.above,
            **(self._no_cuts() if size.above else self._no_candidates()),
        )

    def _no_cuts(self) -> dict[str, np.ndarray]:
        one = np.zeros(self.size.tokens, np.int32)
        keep = np.zeros((len(self.size.above), self.size.tokens), np.int32)
        return {"cut_images": one, "cut_keep": keep, "cut_queries": one.copy()}

    def _no_candidates(self) -> dict[str, np.ndarray]:
        if not self.method:
            return {}
        slots = np.full(self.candidates, -1, np.int32)
        nothing = {"candidate_images": np.zeros_like(slots), "candidate_keep": np.zeros_like(slots)}
        if self.method == CDPRUNER:
            nothing |= {"candidate_questions": np.zeros_like(slots)}
            nothing |= {"question_words": np.zeros(self.size.tokens, np.int32)}
        if self.method == POOL_LEARNED:
            nothing |= {"candidate_quadrants": np.zeros_like(slots)}
        return {"candidate_slots": slots, **nothing, "candidate_positions": np.zeros((3, len(slots)), np.int32)}

    def batch(self, rows: int) -> Batch:
        """So many rows of padding, in the memory of one: what a step is compiled for."""
        row = self.empty()
        arrays: dict[str, Any] = {name: np.broadcast_to(array, (rows, *array.shape)) for name, array in row.items()}
        return dataclasses.replace(row, **arrays)


def assemble(examples: Sequence[Example], spec: RowSpec) -> Batch:
    """One row with these examples, one after the other.

    Raises:
      ValueError: they do not fit.
    """
    needed = sum((example.size for example in examples), NOTHING)
    if not spec.size.above and set(needed.above) <= {needed.tokens}:
        needed = dataclasses.replace(needed, above=())  # nothing is left out, so nothing is cut
    if not needed.fits(spec.size):
        raise ValueError(f"examples of {needed} do not fit a row of {spec.size}")
    row: Any = spec.empty()
    token = target = 0
    slots, candidates, images = _Slots(row, spec.patches_per_token), _Candidates(row), 0
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
        laid = []
        for number, image in enumerate(example.images):
            mine, visual = np.split(visual, [image.tokens])
            laid.append(slots.add(image))
            row.visual_index[mine] = laid[-1] if image.kept is None else laid[-1][image.kept]
            if example.above is not None and row.above:
                images += 1
                row.cut_images[mine] = np.where(image.layout.optional, images, 0)
                row.cut_keep[:, mine] = example.above.keep[number][:, None]
                row.cut_queries[mine] = token + example.above.queries[number]
        if row.chooses:
            candidates.add(example, here, laid)
        token, target = here.stop, there.stop
    return row


class _Candidates:
    """The candidates of a row, filled example by example."""

    def __init__(self, row: Batch):
        self._row: Any = row
        self._next = self._images = self._questions = 0

    def add(self, example: Example, here: slice, laid: Sequence[np.ndarray]) -> None:
        """Those of an example in the tokens `here`, whose images' tokens take these slots."""
        row, first = self._row, self._next
        for image, slots in zip(example.images, laid, strict=True):
            those = slice(self._next, self._next + len(slots))
            row.candidate_slots[those] = slots
            optional = image.layout.optional & (image.kept is not None)
            if image.blocks is None:
                row.candidate_images[those] = np.where(optional, self._images + 1, 0)
                row.candidate_keep[those] = np.where(optional, image.tokens - np.count_nonzero(~optional), 0)
            else:
                row.candidate_images[those] = np.where(optional, self._images + image.blocks.number, 0)
                if row.candidate_quadrants is not None:
                    row.candidate_quadrants[those] = image.blocks.quadrant
                row.candidate_keep[those][image.kept] = optional[image.kept]
            self._images = int(row.candidate_images[those].max(initial=self._images))
            self._next = those.stop
        known = example.candidates
        if known is None:  # it has no images, or all of their tokens stay
            visual = example.input_ids == example.image_token
            row.candidate_positions[:, first : self._next] = example.positions[:, visual]
            return
        row.candidate_positions[:, first : self._next] = known.positions
        words = known.question_words
        if known.questions is not None and words is not None:
            words = words[: here.stop - here.start]  # an example may be cut behind its images
            row.question_words[here] = np.where(words > 0, words + self._questions, 0)
            row.candidate_questions[first : self._next] = known.questions + self._questions
            self._questions += int(known.questions.max(initial=0))


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
        layout, token_of_slot = image.layout, image.layout.token_of_slot
        those = slice(self._next, self._next + len(token_of_slot))
        filled = token_of_slot >= 0
        self._patches[those][filled] = image.patches[token_of_slot[filled]]
        self._coords[those] = layout.coords
        self._image_ids[those] = np.where(layout.image_ids > 0, self._images + layout.image_ids, 0)[:, None]
        self._window_ids[those] = layout.window_ids[:, None]
        slots = np.where(layout.slot_of_token >= 0, self._next + layout.slot_of_token, layout.slot_of_token)
        self._images += int(layout.image_ids.max())
        self._next += len(token_of_slot)
        return slots


def stack(rows: Sequence[Batch]) -> Batch:
    """Rows of one shape become a batch: every array gains a leading [B]."""
    arrays: dict[str, Any] = {name: np.stack([getattr(row, name) for row in rows]) for name, _ in rows[0].items()}
    return dataclasses.replace(rows[0], **arrays)
