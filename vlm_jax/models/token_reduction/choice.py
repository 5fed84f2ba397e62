"""Visual tokens put in their places in a row, once a method has chosen which stay."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from vlm_jax.errors import InputError
from vlm_jax.models.token_reduction.candidates import Candidates, scaled, unit
from vlm_jax.models.token_reduction.learned import gated
from vlm_jax.models.token_reduction.methods import METHODS, Method
from vlm_jax.processing.rows import Batch


class Taken(NamedTuple):
    """What the tokens of rows take.

    Attributes:
      taken: the visual embedding of each token; nothing of use for text.
      index: which one that is, as a batch's `visual_index`.
      positions: of M-RoPE.
      deep: of DeepStack's features the same ones; None where there are none.
    """

    taken: Float[Array, "b t d"]
    index: Int32[Array, "b t"]
    positions: Int32[Array, "b 3 t"]
    deep: Float[Array, "k b t d"] | None = None


def reduced(
    batch: Batch,
    visual: Float[Array, "b u d"],
    words: Float[Array, "b t d"],
    importance: Float32[Array, "b u"] | None = None,
    reducer: Callable | None = None,
    deep: Float[Array, "k b u d"] | None = None,
) -> Taken:
    """Which visual embedding each token of the rows takes.

    Args:
      batch: with candidates.
      visual: of every visual embedding of the tower.
      words: token embeddings, for methods that follow the question.
      importance: of each visual embedding, for methods that ask for it.
      reducer: what the model has learned for the method (`learned.LEARNED`).
      deep: features that go the same way as `visual`, which alone decides: one index serves all.

    Raises:
      InputError: the method weighs importance, and the tower tells none.

    Returns:
      With the tokens that stay in the place of those that the host assumed.
    """
    method = METHODS[batch.method]
    if "importance" in method.needs and importance is None:
        raise InputError(
            f"token reduction {batch.method!r} weighs the attention that visual tokens receive, and this model's tower "
            "does not tell it; take divprune, uniform or another"
        )
    slots = batch.candidate_slots
    places = jnp.maximum(slots, 0)[..., None]
    taken = jnp.take_along_axis(visual, places, axis=1)
    # Beside each token, [b, n, k, d]: what merges or chooses goes row by row.
    beside = None if deep is None else jnp.moveaxis(jnp.take_along_axis(deep, places[None], axis=2), 0, 2)
    assert reducer is not None or not method.learned  # a model without one is refused when it is loaded
    if method.learned == "scores":
        importance = reducer(taken)
        taken = gated(taken, importance)
    elif importance is not None:
        importance = jnp.take_along_axis(importance, jnp.maximum(slots, 0), axis=1)

    query = None
    if "query" in method.needs:
        means = jax.vmap(_question_means)(jax.lax.stop_gradient(unit(words)), batch.question_words)
        query = jnp.take_along_axis(means, batch.candidate_questions[..., None], axis=1)

    row = functools.partial(_chosen, method, reducer, jnp.max(batch.candidate_keep), words.shape[1])
    known = (batch.candidate_images, batch.candidate_keep, taken, importance, query, batch.candidate_quadrants, beside)
    stay, taken, beside = jax.vmap(row)(*known)
    stay |= (batch.candidate_images == 0) & (slots != -1)  # class tokens, and ends of rows
    chosen = _in_places(stay, batch.visual_index != -1)

    def put(values):
        return jnp.take_along_axis(values, chosen, axis=-1)

    visual_here = batch.visual_index != -1
    index = jnp.where(visual_here, put(slots), -1)
    positions = jnp.where(
        visual_here[:, None], jnp.take_along_axis(batch.candidate_positions, chosen[:, None], axis=-1), batch.positions
    )
    there = chosen[..., None]
    taken = jnp.take_along_axis(taken, there, axis=1)
    if beside is None:
        return Taken(taken, index, positions)
    return Taken(taken, index, positions, jnp.moveaxis(jnp.take_along_axis(beside, there[..., None], axis=1), 2, 0))


def _chosen(
    method: Method, reducer: Callable | None, rounds, most: int, image, keep, taken, importance, query, quadrant, beside
) -> tuple[Bool[Array, " n"], Float[Array, "n d"], Float[Array, "n k d"] | None]:
    """Of the candidates of one row, which stay, and what is there where they do. The host keeps no image longer than
    `most`, a row."""
    fixed = jax.lax.stop_gradient(unit(taken)) if "embeddings" in method.needs else None
    candidates = Candidates(image, keep, rounds, fixed, importance, query, quadrant)
    if importance is not None:
        weights = scaled(candidates, jax.lax.stop_gradient(importance))
        candidates = dataclasses.replace(candidates, importance=weights)
    stay = method.choose(candidates, most=most) if method.factored else method.choose(candidates)
    if reducer is not None and method.learned == "merge":
        merge = functools.partial(reducer, candidates, most=most)
    elif method.merge is not None:
        merge = functools.partial(method.merge, candidates)
    else:
        return stay, taken, beside
    return stay, merge(taken), None if beside is None else jax.vmap(merge, in_axes=1, out_axes=1)(beside)


def _question_means(words: Float32[Array, "t d"], questions: Int32[Array, " t"]) -> Float32[Array, "q d"]:
    """Of each question of a row, by its number, the mean of its words' unit-length embeddings."""
    count = len(questions) + 1
    total = jax.ops.segment_sum(words, questions, count)
    words_of = jax.ops.segment_sum(jnp.ones(len(questions)), questions, count)
    return total / jnp.maximum(words_of, 1)[:, None]


def _in_places(stay: Bool[Array, "b n"], visual: Bool[Array, "b t"]) -> Int32[Array, "b t"]:
    """Of each visual token of a row the candidate that it is: the first place takes the first that stays, and so on."""
    first = jnp.argsort(~stay, axis=-1, stable=True).astype(jnp.int32)
    rank = jnp.cumsum(visual, axis=-1) - 1
    return jnp.take_along_axis(first, jnp.clip(rank, 0, first.shape[-1] - 1), axis=-1)
