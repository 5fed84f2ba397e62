"""The nearest of many vectors, exactly: on the device block by block, or through FAISS where it is asked for.

Scores are inner products, which of unit vectors are cosines. Equal scores are in the order of the index. What is
searched in is `index`'s, how several searches become one order is `fusion`'s.
"""

import functools
import importlib.util
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from vlm_jax.errors import InputError

BACKENDS = ("device", "faiss")
BLOCK = 65536
"""Vectors that are compared at one time: 200 MB of 768 values each."""
KEPT_BYTES = 4 << 30
"""Of vectors that stay on the device between two searches; of more, each search moves every block anew."""
QUERIES = 64
"""Queries that are compared at one time."""


@runtime_checkable
class Search(Protocol):
    def __call__(
        self, queries: Float32[np.ndarray, "q d"], k: int
    ) -> tuple[Float32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
        """Scores and numbers of the k nearest vectors of each query, the nearest first; all where there are fewer."""


def open_search(vectors: Float32[np.ndarray, "n d"], backend: str = "device", *, block: int = BLOCK) -> Search:
    """A search in these vectors.

    Args:
      backend: device (JAX's default device), or faiss (IndexFlatIP on the CPU).

    Raises:
      InputError: FAISS is asked for and not installed, or a backend that is not known.
    """
    if backend == "faiss":
        return FaissSearch(vectors)
    if backend != "device":
        raise InputError(f"backend is {backend!r}; known are {', '.join(BACKENDS)}")
    return DeviceSearch(vectors, block=block)


class DeviceSearch:
    """Brute force: every query with every vector, in float32 whatever the device prefers."""

    def __init__(self, vectors: Float32[np.ndarray, "n d"], *, block: int = BLOCK):
        self._vectors, self._block = vectors, max(1, min(block, len(vectors)))
        self._kept: dict[int, jax.Array] | None = {} if vectors.nbytes <= KEPT_BYTES else None

    def __call__(
        self, queries: Float32[np.ndarray, "q d"], k: int
    ) -> tuple[Float32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
        k = min(k, len(self._vectors))
        if not len(queries) or not k:
            return np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int32)
        found = [self._nearest(queries[start : start + QUERIES], k) for start in range(0, len(queries), QUERIES)]
        scores, numbers = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(numbers)

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        count = len(queries)
        rows = 1 << (count - 1).bit_length()
        padded = jnp.asarray(np.pad(queries, ((0, rows - count), (0, 0))))
        best = jnp.full((rows, k), -jnp.inf, jnp.float32), jnp.zeros((rows, k), jnp.int32)
        for start in range(0, len(self._vectors), self._block):
            valid = min(self._block, len(self._vectors) - start)
            best = _merged(best, padded, self._of(start), np.int32(start), np.int32(valid), k=k)
        return tuple(np.asarray(part)[:count] for part in best)  # type: ignore[return-value]

    def _of(self, start: int) -> jax.Array:
        """A block, filled up with zeros."""
        if self._kept is not None and start in self._kept:
            return self._kept[start]
        part = np.asarray(self._vectors[start : start + self._block])
        block = jax.device_put(np.pad(part, ((0, self._block - len(part)), (0, 0))))
        if self._kept is not None:
            self._kept[start] = block
        return block


@functools.partial(jax.jit, static_argnames="k")
def _merged(
    best: tuple[Float[Array, "q k"], Int[Array, "q k"]],
    queries: Float[Array, "q d"],
    block: Float[Array, "n d"],
    start: Int[Array, ""] | np.int32,
    valid: Int[Array, ""] | np.int32,
    *,
    k: int,
) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """The best so far and those of a block together. Of equal ones `top_k` has the earlier first, and the best so far
    stand before the block, so the order of the index decides."""
    scores = jnp.matmul(queries, block.T, precision=jax.lax.Precision.HIGHEST)
    scores = jnp.where(jnp.arange(block.shape[0]) < valid, scores, -jnp.inf)
    scores, places = jax.lax.top_k(scores, min(k, block.shape[0]))
    scores = jnp.concatenate([best[0], scores], axis=1)
    numbers = jnp.concatenate([best[1], places.astype(jnp.int32) + start], axis=1)
    scores, places = jax.lax.top_k(scores, k)
    return scores, jnp.take_along_axis(numbers, places, axis=1)


class FaissSearch:
    """FAISS' exact inner products. Equal scores are in the order of the index, but for those that tie with the k-th,
    of which FAISS chooses."""

    def __init__(self, vectors: Float32[np.ndarray, "n d"]):
        if importlib.util.find_spec("faiss") is None:
            raise InputError("backend faiss needs the package faiss-cpu; install it: pip install 'vlm-jax[retrieval]'")
        import faiss

        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors))

    def __call__(
        self, queries: Float32[np.ndarray, "q d"], k: int
    ) -> tuple[Float32[np.ndarray, "q k"], Int32[np.ndarray, "q k"]]:
        k = min(k, self._index.ntotal)
        if not len(queries) or not k:
            return np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int32)
        scores, numbers = self._index.search(np.ascontiguousarray(queries), k)
        order = np.lexsort((numbers, -scores), axis=-1)
        return np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1).astype(np.int32)
