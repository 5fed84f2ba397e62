"""What a method of token reduction chooses from: the visual tokens of one row, image after image.

Images of a row differ in size and in how many of their tokens stay, so everything is a reduction by image over arrays
of one length. Nothing of one image enters what is computed for another, and every sum over a token's values is taken in
the same order wherever it lies: an image keeps the same tokens alone and in any row.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

NEVER = -jnp.inf
"""Score of what is not to be chosen (again)."""
_TINY = 1e-12
_ROUNDING = 1e-6
"""By which the cosine of identical vectors may miss 1 in float32."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Candidates:
    """The visual tokens of one row, in reading order.

    Attributes:
      image: which image of the row a token is of, from 1 and ascending; 0 for padding.
      keep: how many tokens of that image stay.
      rounds: the most that any image of the batch keeps. Not by row: rows on several devices then take the rounds of a
        greedy method without asking each other whether they are done.
      embeddings: what the connector made of each, of unit length (`unit`).
      importance: of each within its image; for methods that ask for it.
      query: the mean of the unit-length embeddings of the question that is asked about its image; likewise.
      quadrant: which quarter of its block (its `image`) a token is of, for a method that merges blocks.
    """

    image: Int32[Array, " n"]
    keep: Int32[Array, " n"]
    rounds: Int32[Array, ""]
    embeddings: Float32[Array, "n d"] | None = None
    importance: Float32[Array, " n"] | None = None
    query: Float32[Array, "n d"] | None = None
    quadrant: Int32[Array, " n"] | None = None

    @property
    def there(self) -> Bool[Array, " n"]:
        """Whether a place holds a token."""
        return self.image > 0

    def largest(self, values: Float32[Array, " n"]) -> Float32[Array, " n"]:
        """Of each token, the largest value in its image."""
        return self._by_image(jax.ops.segment_max, values)

    def smallest(self, values: Float32[Array, " n"]) -> Float32[Array, " n"]:
        """Of each token, the smallest value in its image."""
        return self._by_image(jax.ops.segment_min, values)

    def best(self, scores: Float32[Array, " n"]) -> Int32[Array, " n"]:
        """Of each token, where the highest score of its image lies; of equal ones the first."""
        place = jnp.arange(len(scores), dtype=jnp.int32)
        first = jnp.where(scores == self.largest(scores), place, len(scores))
        return jnp.minimum(self._by_image(jax.ops.segment_min, first), len(scores) - 1)

    def _by_image(self, reduce, values):
        return reduce(values, self.image, num_segments=len(values) + 1)[self.image]


def unit(vectors: Float[Array, "*n d"]) -> Float32[Array, "*n d"]:
    """Vectors of unit length in float32; a vector of zeros stays one."""
    vectors = vectors.astype(jnp.float32)
    return vectors / jnp.maximum(jnp.sqrt(jnp.sum(vectors * vectors, axis=-1, keepdims=True)), _TINY)


def cosine(one: Float32[Array, "*n d"], other: Float32[Array, "*n d"]) -> Float32[Array, "*n"]:
    """Of unit vectors, pair by pair. Multiplied and summed, not a matrix product: the same whichever comes first and
    wherever in a row they lie, so that equal tokens have equal scores. Of identical ones it is 1 and not
    1 within rounding: a token that has a twin is then as near to it as any other to its own."""
    found = jnp.sum(one * other, axis=-1)
    return jnp.where(found > 1 - _ROUNDING, 1.0, found)


def scaled(candidates: Candidates, values: Float32[Array, " n"]) -> Float32[Array, " n"]:
    """Values between 0 and 1 within each image; 1 for all where an image has only equal ones."""
    low, high = candidates.smallest(values), candidates.largest(values)
    return jnp.where(high > low, (values - low) / jnp.maximum(high - low, _TINY), 1.0)


def top(candidates: Candidates, scores: Float32[Array, " n"]) -> Bool[Array, " n"]:
    """The `keep` highest scores of each image; of equal ones the first."""
    order = jnp.lexsort((-scores, candidates.image))  # stable
    sorted_images = candidates.image[order]
    rank = jnp.arange(len(scores)) - jnp.searchsorted(sorted_images, sorted_images)
    chosen = (rank < candidates.keep[order]) & (sorted_images > 0)
    return jnp.zeros(len(scores), bool).at[order].set(chosen)


def greedy(candidates: Candidates, state, score, update) -> Bool[Array, " n"]:
    """One token of each image a round: that with the highest score, until each has what it keeps.

    Args:
      state: any tree of arrays.
      score: (state) → a score of each token; those that are kept already are left out of it here.
      update: (state, best, round) → the state once the tokens `best[i]`, of i's image, are kept.
    """
    place = jnp.arange(len(candidates.image), dtype=jnp.int32)

    def body(carry):
        number, kept, state = carry
        best = candidates.best(jnp.where(kept | ~candidates.there, NEVER, score(state)))
        kept |= (best == place) & candidates.there & (number < candidates.keep)
        return number + 1, kept, update(state, best, number)

    start = jnp.int32(0), jnp.zeros(len(place), bool), state
    return jax.lax.while_loop(lambda carry: carry[0] < candidates.rounds, body, start)[1]
