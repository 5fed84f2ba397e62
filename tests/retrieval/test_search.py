"""Searches find what NumPy finds, however the index is cut into blocks; equal scores keep the order of the index."""

import numpy as np
import pytest

from vlm_jax.errors import InputError
from vlm_jax.retrieval import search
from vlm_jax.retrieval.search import BACKENDS, DeviceSearch, open_search


def units(rng, count, width=16):
    vectors = rng.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reference(queries, vectors, k):
    """By float64 and a stable sort."""
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("count", "k"), [(200, 7), (5, 5), (3, 10), (1, 1)])
def test_the_nearest_are_numpys(backend, count, k):
    rng = np.random.default_rng(count)
    vectors, queries = units(rng, count), units(rng, 5)
    scores, numbers = open_search(vectors, backend)(queries, k)
    expected_scores, expected = reference(queries, vectors, k)
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


@pytest.mark.parametrize("block", [7, 64, 200])
def test_blocks_of_any_size_find_the_same(block):
    rng = np.random.default_rng(0)
    vectors, queries = units(rng, 150), units(rng, search.QUERIES + 3)
    np.testing.assert_array_equal(DeviceSearch(vectors, block=block)(queries, 9)[1], reference(queries, vectors, 9)[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_scores_keep_the_order_of_the_index(backend):
    rng = np.random.default_rng(1)
    vectors = units(rng, 40)
    vectors[[3, 17, 18, 39]] = vectors[5]
    _, numbers = open_search(vectors, backend, block=8)(vectors[[5]], 5)
    assert numbers.tolist() == [[3, 5, 17, 18, 39]]


def test_of_equal_scores_at_the_last_place_the_first_of_the_index_is_found():
    vectors = np.tile(np.eye(4, dtype=np.float32)[:1], (30, 1))
    assert DeviceSearch(vectors, block=7)(vectors[:1], 6)[1].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_vectors_that_do_not_stay_on_the_device_are_found_all_the_same(monkeypatch):
    monkeypatch.setattr(search, "KEPT_BYTES", 0)
    rng = np.random.default_rng(2)
    vectors, queries = units(rng, 50), units(rng, 2)
    np.testing.assert_array_equal(DeviceSearch(vectors, block=16)(queries, 4)[1], reference(queries, vectors, 4)[1])


def test_no_queries_and_no_vectors_are_no_error():
    vectors = units(np.random.default_rng(3), 4)
    assert DeviceSearch(vectors)(vectors[:0], 3)[1].shape == (0, 3)
    assert DeviceSearch(vectors[:0])(vectors, 3)[1].shape == (4, 0)


def test_a_backend_that_is_not_there_is_told_in_one_line(monkeypatch):
    vectors = np.eye(2, dtype=np.float32)
    with pytest.raises(InputError, match="backend is 'annoy'; known are device, faiss"):
        open_search(vectors, "annoy")
    monkeypatch.setattr(search.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"faiss needs the package faiss-cpu; install it: pip install 'vlm-jax\[ret"):
        open_search(vectors, "faiss")
