"""Every way to compute attention against plain NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.errors import InputError
from vlm_jax.models.attention import CHUNK, attend_cached, attention, attention_received, choose
from vlm_jax.models.blockwise import BLOCK
from vlm_jax.models.fused_attention import KERNELS, fused
from vlm_jax.parallel.mesh import MeshShape, make_mesh


def plain(q, k, v, segments, causal):
    heads, kv_heads = q.shape[2], k.shape[2]
    k, v = (np.repeat(x, heads // kv_heads, axis=2).astype(np.float64) for x in (k, v))
    scores = np.einsum("bthd,bshd->bhts", q.astype(np.float64), k) / np.sqrt(q.shape[-1])
    visible = segments[:, :, None] == segments[:, None, :]
    if causal:
        visible &= np.tril(np.ones(visible.shape[1:], bool))
    scores = np.where(visible[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("bhts,bshd->bthd", weights / weights.sum(axis=-1, keepdims=True), v)


LENGTHS = {
    "reference": (5, CHUNK + 3),
    "chunked": (5, CHUNK, CHUNK + 3, 2 * CHUNK + 100),
    "blockwise": (5, BLOCK, 2 * BLOCK + 3),
}


@pytest.mark.parametrize(("implementation", "length"), [(name, one) for name, many in LENGTHS.items() for one in many])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_plain_numpy(implementation, length, causal):
    rng = np.random.default_rng(length)
    q = rng.normal(size=(2, length, 4, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, length, 2, 8)).astype(np.float32)
    segments = np.sort(rng.integers(0, 4, (2, length)), axis=1)[:, ::-1].copy().astype(np.int32)
    arrays = [jnp.asarray(x) for x in (q, k, v, segments, segments)]
    out = attention(*arrays, causal=causal, implementation=implementation)
    seen = segments > 0 if implementation == "blockwise" else np.full(segments.shape, True)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out[seen], plain(q, k, v, segments, causal)[seen], atol=2e-6)


@pytest.mark.parametrize("implementation", ["chunked", "blockwise"])
@pytest.mark.parametrize("causal", [True, False])
def test_gradients_equal_those_of_the_reference(implementation, causal):
    rng = np.random.default_rng(0)
    length = 3 * CHUNK + 37
    q = jnp.asarray(rng.normal(size=(2, length, 4, 8)), jnp.float32)
    k, v = jnp.asarray(rng.normal(size=(2, 2, length, 2, 8)), jnp.float32)
    counts = ([100, 150, length - 300, 50], [350, 30, 300, length - 680])
    segments = np.stack([np.repeat([1, 2, 3, 0], count) for count in counts]).astype(np.int32)
    segments[1, 400:410] = 0  # slots that nothing fills lie between those of images
    segments, real = jnp.asarray(segments), jnp.asarray(segments > 0)[..., None, None]

    def value(implementation):
        def f(q, k, v):
            out = attention(q, k, v, segments, segments, causal=causal, implementation=implementation)
            return jnp.sum(jnp.sin(out) * real)

        return jax.jit(jax.grad(f, (0, 1, 2)))(q, k, v)

    for mine, theirs in zip(value(implementation), value("reference"), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("causal, length, width", [(True, 200, 16), (False, 256, 80)])
def test_kernels_equal_the_reference_forward_and_backward_on_a_mesh(kind, causal, length, width):
    """Interpreted: what the kernels compute is checked here, that they compile in the tests of compile_check."""
    rng = np.random.default_rng(length)
    q = jnp.asarray(rng.normal(size=(4, length, 4, width)), jnp.float32)
    k, v = jnp.asarray(rng.normal(size=(2, 4, length, 2, width)), jnp.float32)
    segments = jnp.asarray(np.sort(rng.integers(0, 4, (4, length)), axis=1)[:, ::-1].copy().astype(np.int32))

    def value(compute):
        # What padding gets means nothing.
        real = (segments > 0)[..., None, None]
        return jax.value_and_grad(lambda q, k, v: jnp.sum(jnp.sin(compute(q, k, v)) * real), (0, 1, 2))(q, k, v)

    def plainly(q, k, v):
        return attention(q, k, v, segments, segments, causal=causal, implementation="reference")

    with jax.set_mesh(make_mesh(MeshShape(data=2, fsdp=2, tensor=2))):
        found = jax.jit(lambda: value(lambda q, k, v: fused(kind, q, k, v, segments, causal=causal, interpret=True)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5), found, value(plainly))


def test_the_fastest_is_taken_and_one_for_other_hardware_is_refused():
    assert [choose("auto", platform) for platform in ("cpu", "gpu", "tpu")] == ["blockwise", "triton", "splash"]
    assert choose("reference", "tpu") == "reference"
    with pytest.raises(InputError, match="'splash' runs on a TPU, and this is a CPU"):
        choose("splash", "cpu")


def test_an_unknown_implementation_is_refused_by_name():
    x, segments = jnp.zeros((1, 2, 2, 4)), jnp.ones((1, 2), jnp.int32)
    with pytest.raises(ValueError, match="'flash'; known: reference, chunked, blockwise"):
        attention(x, x, x, segments, segments, causal=True, implementation="flash")


@pytest.mark.parametrize("length", [7, 259])
def test_attention_that_is_received_equals_plain_numpy(length):
    rng = np.random.default_rng(length)
    q, k = (rng.normal(size=(2, length, 3, 4)).astype(np.float32) for _ in range(2))
    segments = np.sort(rng.integers(0, 4, (2, length)).astype(np.int32), axis=1)[:, ::-1].copy()  # 0, padding, last
    found = np.asarray(attention_received(*map(jnp.asarray, (q, k, segments))))
    expected = np.zeros((2, length))
    for row in range(2):
        for segment in range(1, 4):
            mine = np.flatnonzero(segments[row] == segment)
            if not len(mine):
                continue
            scores = np.einsum("thd,shd->hts", q[row][mine].astype(np.float64), k[row][mine]) / 2
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            expected[row, mine] = weights.mean(axis=(0, 1))
            np.testing.assert_allclose(expected[row, mine].sum(), 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_cache_is_looked_at_by_many_queries_in_bounded_memory():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, 2500, 4, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, 2, 2600, 8)).astype(np.float32)
    ends = np.stack([np.arange(100, 2600), np.arange(0, 2500)]).astype(np.int32)
    looked = jax.jit(attend_cached).lower(q, k, v, ends).compile()
    # All scores are 208 MB; 1.2 GB were seen of them and what is made of them.
    assert looked.memory_analysis().temp_size_in_bytes < 4 * 2**22 * 4 * 4
    found = np.asarray(looked(q, k, v, ends))
    for row, place in ((0, 0), (0, 2499), (1, 0), (1, 1300), (1, 2499)):
        end = ends[row, place] + 1
        scores = np.einsum("hd,hsd->hs", q[row, place], np.repeat(k[row, :, :end], 2, axis=0)) / np.sqrt(8)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        expected = np.einsum("hs,hsd->hd", weights, np.repeat(v[row, :, :end], 2, axis=0)) / weights.sum(-1)[:, None]
        np.testing.assert_allclose(found[row, place], expected, atol=2e-6)
