"""An example: one conversation, processed. What it takes of a row, and what is known of its visual tokens."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from vlm_jax.processing.pooling import Blocks
from vlm_jax.processing.vision_layout import VisionLayout


@dataclasses.dataclass(frozen=True, eq=False)
class PatchedImage:
    """One image of an example: its patches by visual token, and its layout in the tower."""

    patches: UInt8[np.ndarray, "tokens patches_per_token values"]
    grid: tuple[int, ...]
    """How it was cut: visual tokens (rows, columns), or a `fixed_views.Tiling`."""
    layout: VisionLayout
    kept: Int[np.ndarray, " kept"] | None = None
    """Which of its tokens the decoder sees, ascending; None: all. Where the device chooses, as many as it chooses."""

    blocks: Blocks | None = None
    """Which of them are merged into one; None: none are."""

    @property
    def tokens(self) -> int:
        """How many of its tokens the decoder sees."""
        return len(self.layout.slot_of_token if self.kept is None else self.kept)


@dataclasses.dataclass(frozen=True, eq=False)
class CandidateTokens:
    """What is known of all visual tokens of an example, where the device chooses which of them stay.

    Attributes:
      method: how it chooses (`token_budget.METHODS`).
      positions: of M-RoPE, of all tokens of its images one after the other.
      question_words: of each token of the example the question, from 1, that it is a word of; 0 for all others. Like
        the next, for a method that follows the question.
      questions: which of them is asked about each token's image.
    """

    method: str
    positions: Int[np.ndarray, "3 n"]
    question_words: Int[np.ndarray, " tokens"] | None = None
    questions: Int[np.ndarray, " n"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class TokensAbove:
    """What stays of an example's images above each cut within the decoder (`token_budget.CUTS`).

    Attributes:
      keep: how many of those tokens of each image that may be left out.
      queries: the place of the token that each image's are weighed by: what is asked about it ends there.
    """

    keep: Int[np.ndarray, "images cuts"]
    queries: Int[np.ndarray, " images"]


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
    candidates: CandidateTokens | None = None
    above: TokensAbove | None = None
    """Where tokens are left out within the decoder."""

    @property
    def supervised(self) -> Bool[np.ndarray, " n"]:
        """Tokens to be predicted in training."""
        return self.weights > 0

    def before(self, stop: int) -> "Example":
        """The tokens up to a place behind all images."""
        words = self.candidates
        if words is not None and words.question_words is not None:
            words = dataclasses.replace(words, question_words=words.question_words[:stop])
        return dataclasses.replace(
            self,
            input_ids=self.input_ids[:stop],
            positions=self.positions[:, :stop],
            weights=self.weights[:stop],
            candidates=words,
        )

    def behind(self, start: int) -> "Example":
        """The tokens from a place on, which is within no image, and the images among them."""
        before = int((self.input_ids[:start] == self.image_token).sum())
        known = int(np.sum(np.cumsum([image.tokens for image in self.images]) <= before))
        candidates = self.candidates
        if candidates is not None:
            done = sum(len(image.layout.slot_of_token) for image in self.images[:known])
            candidates = CandidateTokens(
                candidates.method,
                candidates.positions[:, done:],
                None if candidates.question_words is None else candidates.question_words[start:],
                None if candidates.questions is None else candidates.questions[done:],
            )
        return Example(
            self.input_ids[start:],
            self.positions[:, start:],
            self.weights[start:],
            self.images[known:],
            self.image_token,
            candidates,
            None if self.above is None else TokensAbove(self.above.keep[known:], self.above.queries[known:] - start),
        )

    @property
    def size(self) -> "Size":
        patches_per_token = self.images[0].patches.shape[1] if self.images else 0
        slots = sum(len(image.layout.token_of_slot) for image in self.images)
        tokens, supervised = len(self.input_ids), int(np.count_nonzero(self.weights))
        above = () if self.above is None else tokens_above([i.layout for i in self.images], self.above.keep, tokens)
        return Size(tokens, slots * patches_per_token, supervised, above)


def tokens_above(layouts: Sequence[VisionLayout], keep: Int[np.ndarray, "images cuts"], tokens: int) -> tuple[int, ...]:
    """Of so many tokens, with images laid out like this, how many are left above each cut."""
    optional = sum(int(layout.optional.sum()) for layout in layouts)
    return tuple((tokens - optional + keep.sum(axis=0)).tolist())


@dataclasses.dataclass(frozen=True, order=True)
class Size:
    """The lengths a row is packed by: tokens, patch slots (window padding included), supervised positions; and, where
    tokens are left out within the decoder, how many there are above each cut."""

    tokens: int
    patches: int
    supervised: int
    above: tuple[int, ...] = ()

    @classmethod
    def of(cls, columns: Sequence[int]) -> "Size":
        tokens, patches, supervised, *above = columns
        return cls(tokens, patches, supervised, tuple(above))

    @property
    def columns(self) -> tuple[int, ...]:
        """All lengths, as arrays of sizes have them."""
        return self.tokens, self.patches, self.supervised, *self.above

    def __add__(self, other: "Size") -> "Size":
        return Size.of([sum(pair) for pair in itertools.zip_longest(self.columns, other.columns, fillvalue=0)])

    def fits(self, capacity: "Size") -> bool:
        pairs = itertools.zip_longest(self.columns, capacity.columns, fillvalue=0)
        return all(own <= there for own, there in pairs)


NOTHING = Size(0, 0, 0)
