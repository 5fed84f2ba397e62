"""Fewer visual tokens: which of an image's tokens the decoder sees, a short file a method.

    resize        the image itself is made smaller (`processing.image_processors`); saves the tower's work too
    random        token_budget: a seeded sample
    uniform       token_budget: an even stride
    pool          blocks of neighbours become their mean
    pool_learned  likewise, side by side and through a projection that is learned
    divprune      as far apart as may be
    mmr           important, and unlike what is kept
    mmr_learned   likewise, with an importance that is learned
    cdpruner      diverse, given the question
    visionzip     what receives most attention; the rest is merged into a few
    fastv         above a layer of the decoder, what the question attends to
    pyramiddrop   likewise at three depths, fewer each time

How many tokens of an image stay is worked out on the host (`processing.token_budget`), so that shapes are fixed; which
ones, here, on the device. A method is given what it asks for in `METHODS`, and nothing else.
"""

import difflib
import functools
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from vlm_jax.errors import InputError
from vlm_jax.models.token_reduction.candidates import Candidates, unit
from vlm_jax.models.token_reduction.methods import METHODS
from vlm_jax.processing import token_budget

_STEP = 64
"""Numbers of tokens are rounded up to a multiple of this, so that few programs are compiled."""


def keep_tokens(
    method: str,
    embeddings: ArrayLike,
    keep: int,
    *,
    importance: ArrayLike | None = None,
    query: ArrayLike | None = None,
    grid: tuple[int, int] | None = None,
    seed: int = 0,
) -> Int[np.ndarray, " keep"]:
    """Which tokens of one image a method keeps.

    Args:
      method: a key of `METHODS`; not pool and pool_learned, which merge blocks of neighbours and choose nothing, nor
        mmr_learned, which is mmr with importances of a model's own.
      embeddings: [n, d], the image's visual tokens in reading order.
      keep: how many stay.
      importance: [n], of each token, for methods that weigh it, as it is given: bring it to between 0 and 1 for `mmr`;
        for fastv and pyramiddrop the attention that it gets from the question's last token.
      query: [m, d], embeddings of the question's tokens, for methods that follow the question.
      grid: rows and columns of the tokens; checked against their number.
      seed: of `random`.

    Returns:
      Indices, ascending. What a method has no use for is not looked at.

    Raises:
      InputError: an unknown method, numbers that do not go together, or something that the method needs is missing.
    """
    embeddings = _array(embeddings)
    weighed = {
        name: None if values is None else _array(values)
        for name, values in (("importance", importance), ("query", query))
    }
    if errors := _errors(method, embeddings, keep, weighed, grid, seed):
        raise InputError(errors)
    count, keep = len(embeddings), int(keep)
    if method == "uniform":
        return token_budget.uniform(count, keep)
    if method == "random":
        return token_budget.random(count, keep, seed)

    padded = -(-count // _STEP) * _STEP

    def pad(array) -> np.ndarray:
        array = np.asarray(array, np.float32)
        return np.pad(array, [(0, padded - count)] + [(0, 0)] * (array.ndim - 1))

    needs = METHODS[method].needs
    chosen = _choose(
        method,
        np.pad(np.ones(count, np.int32), (0, padded - count)),
        np.full(padded, keep, np.int32),
        pad(embeddings),
        pad(weighed["importance"]) if "importance" in needs else None,
        np.asarray(weighed["query"], np.float32) if "query" in needs else None,
    )
    return np.flatnonzero(np.asarray(chosen)[:count])


@functools.partial(jax.jit, static_argnums=0)
def _choose(method, image, keep, embeddings, importance, query):
    if query is not None:
        query = jnp.broadcast_to(jnp.mean(unit(query), axis=0), embeddings.shape)
    candidates = Candidates(image, keep, jnp.max(keep), unit(embeddings), importance, query)
    most = {"most": len(image)} if METHODS[method].factored else {}
    return METHODS[method].choose(candidates, **most)


def _array(values: ArrayLike) -> np.ndarray:
    """As numpy has it; of no numbers, an array of objects."""
    try:
        return np.asarray(values)
    except ValueError:  # rows of several lengths
        return np.asarray(None)


def _errors(method: str, embeddings: np.ndarray, keep: int, weighed: dict, grid, seed: int) -> list[str]:
    if not isinstance(method, str) or method not in METHODS:
        near = difflib.get_close_matches(str(method), METHODS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return [f"method {method!r}: known are {', '.join(METHODS)}{hint}"]
    if method.startswith("pool"):
        return [f"{method} makes blocks of neighbouring tokens one each, and chooses none; take another method"]
    if METHODS[method].learned:
        return [f"{method} weighs tokens as a model has learned to; take mmr, with these importances"]
    if embeddings.ndim != 2 or not jnp.issubdtype(embeddings.dtype, jnp.floating):
        return [f"embeddings are {embeddings.dtype} {list(embeddings.shape)}; wanted floats [n, d]"]
    errors, count = [], len(embeddings)
    if "embeddings" in METHODS[method].needs and not _finite(embeddings):
        errors.append("embeddings hold NaN or infinity")
    if not _whole(keep) or not 1 <= keep <= count:
        errors.append(f"keep is {keep!r}; wanted a whole number between 1 and the image's {count} tokens")
    if grid is not None and not _is_grid_of(grid, count):
        errors.append(f"grid {grid!r} is not that of {count} tokens: wanted (rows, columns)")
    if method == "random" and (not _whole(seed) or seed < 0):
        errors.append(f"seed is {seed!r}; wanted a whole number from 0")
    for name in sorted(METHODS[method].needs - {"embeddings"}):
        if weighed[name] is None:
            errors.append(f"{method} needs {name}=, and got none")
        else:
            errors += _WEIGHED_ERRORS[name](weighed[name], *embeddings.shape)
    return errors


def _importance_errors(importance: np.ndarray, count: int, width: int) -> list[str]:
    if importance.shape != (count,) or not _real(importance):
        return [f"importance is {importance.dtype} {list(importance.shape)}; wanted {count} finite numbers"]
    return [] if _finite(importance) else ["importance holds NaN or infinity; wanted finite numbers"]


def _query_errors(query: np.ndarray, count: int, width: int) -> list[str]:
    if query.ndim != 2 or query.shape[1] != width or not len(query) or not _real(query):
        wanted = f"wanted [m, {width}] of numbers, one row a token of the question"
        return [f"query is {query.dtype} {list(query.shape)}; {wanted}"]
    return [] if _finite(query) else ["query holds NaN or infinity; wanted finite numbers"]


_WEIGHED_ERRORS = {"importance": _importance_errors, "query": _query_errors}


def _whole(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_grid_of(grid, count: int) -> bool:
    sides = list(grid) if isinstance(grid, Sequence | np.ndarray) else []
    whole = len(sides) == 2 and all(_whole(side) and side > 0 for side in sides)
    return whole and int(sides[0]) * int(sides[1]) == count


def _real(array: np.ndarray) -> bool:
    """Whether it holds numbers that are no complex ones."""
    return any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _finite(array: np.ndarray) -> bool:
    """Whether all of it is a number, also in float32, in which it is looked at."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(np.float32)).all())
