"""Rows on their way through the decoder, with visual tokens left out between its layers.

Where and how many is known on the host (`processing.rows.Batch`), so that rows above a cut have a fixed, smaller
length; which, only here: the attention that they receive from the token they are asked about with.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from vlm_jax.models.attention import MASKED
from vlm_jax.models.decoder import Decoder
from vlm_jax.models.layers import constrain_rows, picked
from vlm_jax.models.token_reduction.candidates import Candidates
from vlm_jax.models.token_reduction.methods import METHODS
from vlm_jax.processing.rows import Batch
from vlm_jax.processing.token_budget import cut_layers

_NOWHERE = jnp.iinfo(jnp.int32).max


class Embedded(NamedTuple):
    """Rows as the decoder takes them.

    Attributes:
      x: token embeddings, with visual embeddings where images are.
      positions: of M-RoPE.
      deep: what is added behind each of the decoder's first k layers (DeepStack); None where the tower has none, or
        there are no images.
    """

    x: Float[Array, "b t d"]
    positions: Int[Array, "b 3 t"]
    deep: Float[Array, "k b t d"] | None = None


@dataclasses.dataclass(frozen=True)
class _Tokens:
    """What is known of the tokens of rows: at first of all, then of those that are left.

    Attributes:
      places: where each stood in its row, ascending; `_NOWHERE` for padding that took the place of others.
      positions: of M-RoPE.
      images, keep, queries: as of a `Batch`; queries in places of the whole row.
    """

    places: Int32[Array, "b t"]
    segments: Int[Array, "b t"]
    positions: Int[Array, "b 3 t"]
    images: Int[Array, "b t"] | None
    keep: Int[Array, "b cuts t"] | None
    queries: Int[Array, "b t"] | None

    def left(self, stay: Bool[Array, "b t"], length: int) -> tuple["_Tokens", Int32[Array, "b length"]]:
        """Those that stay, in rows of `length`; and which each of them was."""
        index = jnp.argsort(~stay, axis=-1, stable=True).astype(jnp.int32)[:, :length]
        there = jnp.arange(length) < jnp.sum(stay, axis=-1, keepdims=True)

        def take(values, otherwise=0):
            found = jnp.take_along_axis(values, index.reshape(len(index), *[1] * (values.ndim - 2), -1), axis=-1)
            return jnp.where(there.reshape(len(there), *[1] * (values.ndim - 2), -1), found, otherwise)

        return _Tokens(
            take(self.places, _NOWHERE),
            take(self.segments),
            take(self.positions),
            take(self.images),
            take(self.keep),
            take(self.queries),
        ), index

    def now_at(self, places: Int[Array, "b n"]) -> Int32[Array, "b n"]:
        """Where these places of the whole row are; of one that is left out, the next."""
        return jax.vmap(jnp.searchsorted)(self.places, places).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Through:
    """Rows that went through the decoder.

    Attributes:
      hidden: of the tokens that were left, or of the places that were asked for.
      observed: what was observed in each range of layers between two cuts.
      places: of the tokens of each range, where they stood in their row; padding may stand nowhere (a large number).
    """

    hidden: Float[Array, "b t d"]
    observed: tuple[Any, ...]
    places: tuple[Int32[Array, "b _"], ...]


def through_decoder(
    decoder: Decoder,
    embedded: Embedded,
    batch: Batch,
    *,
    at: Int[Array, "b n"] | None = None,
    observe: Callable | None = None,
    **options,
) -> Through:
    """Embedded rows through all layers of the decoder, with tokens left out where the batch says so.

    Args:
      at, observe, options: as the decoder takes them; `at` in places of whole rows.
    """
    x, positions, deep = embedded
    places = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32), x.shape[:2])
    arrays = (batch.cut_images, batch.cut_keep, batch.cut_queries)
    tokens, start = _Tokens(places, batch.segment_ids, positions, *arrays), 0
    images = jnp.max(batch.cut_images) if batch.above else 0
    observed, known = [], [tokens.places]
    stops = cut_layers(batch.method, batch.layer, decoder.config.layers)
    graph, state = nnx.split(decoder)
    params, shape = jax.tree.flatten(state)
    for cut, (stop, length) in enumerate(zip(stops, batch.above, strict=True)):

        def watch(q, k, v, tokens=tokens):
            return asked(q, k, tokens, images), None if observe is None else observe(q, k, v)

        x, (weights, seen) = decoder(
            x, tokens.positions, tokens.segments, observe=watch, start=start, stop=stop, deep=deep, **options
        )
        stay = _choose(batch.method, tokens.images, tokens.keep[:, cut], weights[-1])
        stay |= (tokens.images == 0) & (tokens.segments > 0)
        tokens, index = tokens.left(stay, length)
        x = constrain_rows(picked(x, index))
        # One choice for all tensors of these tokens.
        deep = None if deep is None else jnp.take_along_axis(deep, index[None, ..., None], axis=2)
        x, *params = _above(x, *params)
        decoder = nnx.merge(graph, jax.tree.unflatten(shape, params))
        observed.append(seen)
        known.append(tokens.places)
        start = stop
    at = at if at is None or not batch.above else tokens.now_at(at)
    x = decoder(x, tokens.positions, tokens.segments, at=at, observe=observe, start=start, deep=deep, **options)
    hidden, seen = x if observe is not None else (x, None)
    return Through(hidden, (*observed, seen), tuple(known))


@jax.custom_vjp
def _above(x, *params):
    """The same: what enters the layers above a cut.

    Backwards, gradients of parameters are summed up range by range: what the ranges above came to is one sum before the
    layers below begin. Left to itself the compiler kept, to the end of the step, a buffer of all layers' gradients for
    each range.
    """
    return x, *params


def _above_forward(x, *params):
    return tuple(one.value for one in (x, *params)), None


def _above_backward(_, gradients):
    known = [place for place, one in enumerate(gradients) if not isinstance(one, SymbolicZero)]
    after = jax.lax.optimization_barrier([gradients[place] for place in known])
    found: list[Any] = [None] * len(gradients)
    for place, one in zip(known, after, strict=True):
        found[place] = one
    return tuple(found)


_above.defvjp(_above_forward, _above_backward, symbolic_zeros=True)


def _choose(method: str, images, keep, weights) -> Bool[Array, "b t"]:
    def one(images, keep, weights):
        return METHODS[method].choose(Candidates(images, keep, jnp.max(keep), importance=weights))

    return jax.vmap(one)(images, keep, weights)


def asked(
    q: Float[Array, "b t heads d"], k: Float[Array, "b t kv_heads d"], tokens: _Tokens, images: Int[Array, ""]
) -> Float32[Array, "b t"]:
    """The attention that each token which may be left out gets from the query, as the mean over heads.

    Computed for these queries alone, an image of every row at a time: kernels do not tell their weights.

    Args:
      images: the most of any row.
    """
    b, t, kv_heads, d = k.shape
    q, k = (jax.lax.stop_gradient(part).astype(jnp.float32) for part in (q, k))
    q = q.reshape(b, t, kv_heads, -1, d)

    def body(carry):
        number, weights = carry
        mine = tokens.images == number
        at = tokens.now_at(jnp.max(jnp.where(mine, tokens.queries, 0), axis=1, keepdims=True))
        at = jnp.minimum(at, t - 1)
        query = jnp.take_along_axis(q, at[:, :, None, None, None], axis=1)[:, 0]
        visible = tokens.segments == jnp.take_along_axis(tokens.segments, at, axis=1)
        visible &= jnp.arange(t) <= at
        scores = jnp.einsum("bkgd,btkd->bkgt", query, k, precision="highest") * d**-0.5
        scores = jnp.where(visible[:, None, None], scores, MASKED)
        return number + 1, jnp.where(mine[:, None, None], jax.nn.softmax(scores, axis=-1), weights)

    # Heads may lie on several devices: they are put together once, not for each image.
    start = jnp.int32(1), jnp.zeros((b, kv_heads, q.shape[3], t), jnp.float32)
    return jnp.mean(jax.lax.while_loop(lambda carry: carry[0] <= images, body, start)[1], axis=(1, 2))
