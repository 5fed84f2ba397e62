"""Each method keeps the tokens that its definition says, whatever lies beside its image in a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vlm_jax
from tests.models.token_reduction.references import REFERENCES, visionzip_merged
from vlm_jax.models import token_reduction
from vlm_jax.models.token_reduction import METHODS, cdpruner, visionzip
from vlm_jax.models.token_reduction.candidates import Candidates, unit
from vlm_jax.processing.token_budget import LEARNED, TokenBudget

WIDTH = 16


def signs(rng, count):
    """Vectors whose lengths and products are exact, so that ties are ties."""
    return rng.choice([-1.0, 1.0], (count, WIDTH)).astype(np.float32)


def inputs(kind: str, seed: int):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 24))
    embeddings = {
        "random": lambda: rng.normal(size=(count, WIDTH)).astype(np.float32),
        "ties": lambda: signs(rng, count),
        "twins": lambda: np.repeat(signs(rng, -(-count // 2)), 2, axis=0)[:count],
        "rounded twins": lambda: np.repeat(rng.normal(size=(-(-count // 2), WIDTH)), 2, axis=0)[:count].astype(
            np.float32
        ),
        "identical": lambda: np.repeat(signs(rng, 1), count, axis=0),
        "zeros": lambda: signs(rng, count) * (rng.random(count) < 0.5)[:, None].astype(np.float32),
        "one": lambda: signs(rng, 1),
    }[kind]()
    count = len(embeddings)
    # Multiples of 1/64, of which sums are exact; some are equal.
    importance = (rng.integers(0, 65, count) / 64).astype(np.float32)
    query = signs(rng, 1) if kind != "random" else rng.normal(size=(5, WIDTH)).astype(np.float32)
    return embeddings, importance, query


@pytest.mark.parametrize("kind", ["random", "ties", "twins", "rounded twins", "identical", "zeros", "one"])
@pytest.mark.parametrize("method", REFERENCES)
def test_the_set_of_the_definition_is_kept_for_every_number(method, kind):
    for seed in range(3):
        embeddings, importance, query = inputs(kind, seed)
        for keep in range(1, len(embeddings) + 1):
            found = vlm_jax.keep_tokens(method, embeddings, keep, importance=importance, query=query)
            expected = REFERENCES[method](embeddings, keep, importance=importance, query=query)
            assert found.tolist() == expected.tolist(), (seed, keep)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("pool", *LEARNED)])
def test_as_many_are_kept_as_asked_in_order_and_all_of_all(method):
    embeddings, importance, query = inputs("random", 7)
    for keep in range(1, len(embeddings) + 1):
        found = vlm_jax.keep_tokens(method, embeddings, keep, importance=importance, query=query)
        assert len(found) == keep and (np.diff(found) > 0).all()
    assert found.tolist() == list(range(len(embeddings)))


def row(images):
    """Several images in one row, padding before, between the parts of nothing, and behind."""
    sizes = [len(one[0]) for one in images]
    total = sum(sizes) + 9

    def lay(parts, width=None):
        array = np.zeros((total, width) if width else total, np.float32)
        array[: sum(sizes)] = np.concatenate(parts)
        return array

    image = np.zeros(total, np.int32)
    image[: sum(sizes)] = np.repeat(np.arange(1, len(images) + 1), sizes)
    keep = np.zeros(total, np.int32)
    keep[: sum(sizes)] = np.repeat([one[3] for one in images], sizes)
    query = lay([np.repeat(unit(jnp.asarray(one[2])).mean(axis=0)[None], len(one[0]), 0) for one in images], WIDTH)
    embeddings, importance = lay([one[0] for one in images], WIDTH), lay([one[1] for one in images])
    return Candidates(*map(jnp.asarray, (image, keep, keep.max(), unit(jnp.asarray(embeddings)), importance, query)))


@jax.jit
def chosen(candidates):
    return {
        name: cdpruner.choose(candidates, most=64) if name == "cdpruner" else METHODS[name].choose(candidates)
        for name in REFERENCES
    }


def test_an_image_in_a_row_keeps_what_it_keeps_alone_and_neighbours_change_nothing():
    images = [(*inputs(kind, 3 + number), 0) for number, kind in enumerate(["random", "twins", "one", "random"])]
    images = [(*one[:3], max(1, len(one[0]) // (2 + number))) for number, one in enumerate(images)]
    together = chosen(row(images))
    for method, kept in together.items():
        start = 0
        for embeddings, importance, query, keep in images:
            alone = vlm_jax.keep_tokens(method, embeddings, keep, importance=importance, query=query)
            here = np.asarray(kept)[start : start + len(embeddings)]
            assert np.flatnonzero(here).tolist() == alone.tolist(), method
            start += len(embeddings)
        assert not np.asarray(kept)[start:].any(), "padding is never chosen"
    for changed in range(len(images)):
        others = list(images)
        embeddings, importance, query, keep = others[changed]
        others[changed] = (embeddings[::-1] * 3, importance[::-1], query * -1, max(1, keep - 1))
        for method, kept in chosen(row(others)).items():
            start = 0
            for number, one in enumerate(images):
                here = slice(start, start + len(one[0]))
                if number != changed:
                    assert (np.asarray(kept)[here] == np.asarray(together[method])[here]).all(), method
                start = here.stop


def test_all_padding_but_one_keeps_the_one():
    image = np.zeros(8, np.int32)
    image[0] = 1
    zeros = jnp.zeros((8, WIDTH))
    one = Candidates(jnp.asarray(image), jnp.ones(8, jnp.int32), jnp.int32(1), zeros, jnp.zeros(8), zeros)
    for method, kept in chosen(one).items():
        assert np.flatnonzero(np.asarray(kept)).tolist() == [0], method


@pytest.mark.parametrize("kind", ["random", "ties", "identical", "one"])
def test_visionzip_merges_what_is_left_into_the_most_similar(kind):
    for seed in range(3):
        embeddings, importance, _ = inputs(kind, seed)
        visual = np.random.default_rng(seed).normal(size=embeddings.shape).astype(np.float32)
        visual = embeddings if kind != "random" else visual
        for keep in {1, len(visual) // 2 + 1, len(visual)}:
            count = len(visual)
            one = jnp.ones(count, jnp.int32)
            embeddings = unit(jnp.asarray(visual))
            candidates = Candidates(one, one * keep, jnp.int32(keep), embeddings, jnp.asarray(importance))
            kept = np.asarray(visionzip.choose(candidates))
            merged = np.asarray(visionzip.merge(candidates, jnp.asarray(visual)))[kept]
            np.testing.assert_allclose(merged, visionzip_merged(visual, keep, importance), atol=1e-5)
            if keep == count:
                np.testing.assert_array_equal(merged, visual)


def test_a_sample_is_the_same_for_a_seed_and_another_for_another():
    embeddings = inputs("random", 1)[0]
    keep = len(embeddings) // 2
    first = vlm_jax.keep_tokens("random", embeddings, keep, seed=1)
    assert (first == vlm_jax.keep_tokens("random", embeddings * 2, keep, seed=1)).all()
    assert any((first != vlm_jax.keep_tokens("random", embeddings, keep, seed=seed)).any() for seed in range(2, 9))


@pytest.mark.parametrize(
    "options, error",
    [
        ({"method": "divprun"}, "did you mean divprune?"),
        ({"keep": 0}, "wanted a whole number between 1 and the image's 6 tokens"),
        ({"keep": True}, "keep is True; wanted a whole number"),
        ({"method": "random", "seed": -1}, "seed is -1; wanted a whole number from 0"),
        ({"keep": 7}, "wanted a whole number between 1 and the image's 6 tokens"),
        ({"method": "mmr"}, "mmr needs importance="),
        ({"method": "cdpruner"}, "cdpruner needs query="),
        ({"method": "mmr", "importance": np.full(6, np.nan)}, "importance holds NaN"),
        ({"method": "cdpruner", "query": np.full((2, WIDTH), np.nan)}, "query holds NaN or infinity"),
        ({"method": "cdpruner", "query": np.zeros((2, 3))}, f"wanted [m, {WIDTH}]"),
        ({"grid": (2, 4)}, "is not that of 6 tokens"),
        ({"grid": (-2, -3)}, "is not that of 6 tokens"),
        ({"method": "mmr", "importance": np.array(["high"] * 6)}, "wanted 6 finite numbers"),
        ({"embeddings": np.zeros(6)}, "wanted floats [n, d]"),
    ],
)
def test_what_does_not_go_together_is_one_line(options, error):
    settings = {"method": "divprune", "embeddings": np.ones((6, WIDTH), np.float32), "keep": 2, **options}
    with pytest.raises(vlm_jax.InputError) as caught:
        vlm_jax.keep_tokens(**settings)
    assert error in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_of_another_type_are_told_apart():
    """Tests check the types of what is called, so `keep_tokens` itself cannot be asked."""
    assert all(map(token_reduction._whole, (3, np.int64(3))))
    assert not any(map(token_reduction._whole, (True, 1.5, 4.0, np.float32(4), "4", None, [4])))
    assert token_reduction._is_grid_of(np.array([2, 3]), 6)
    assert not any(token_reduction._is_grid_of(grid, 6) for grid in (6, "23", (2.0, 3.0), (-2, -3), (6,), (1, 2, 3)))
    assert token_reduction._array([[1.0, 2.0], [1.0]]).ndim == 0


def test_what_a_method_has_no_use_for_is_not_looked_at():
    unused = np.full((6, WIDTH), np.nan, np.float32)
    assert vlm_jax.keep_tokens("uniform", unused, 2, importance=unused, query=unused, seed=-1).tolist() == [0, 3]
    assert vlm_jax.keep_tokens("fastv", unused, 2, importance=[0, 3, 1, 2, 0, 0]).tolist() == [1, 3]


@pytest.mark.parametrize(("share", "tokens", "kept"), [(0.29, 50, 15), (0.35, 90, 32), (0.25, 6, 2), (0.25, 1, 1)])
def test_a_share_is_rounded_halves_up_also_where_no_float_is_that_share(share, tokens, kept):
    assert TokenBudget(share, "uniform").count(tokens) == kept
