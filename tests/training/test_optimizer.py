"""Muon against a singular value decomposition, AdamW against optax itself, and where the optimizer state lies."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vlm_jax.parallel.mesh import MeshShape, make_mesh
from vlm_jax.training.config import default_config
from vlm_jax.training.optimizer import MUON_RMS, learning_rate, make_optimizer, optimizer_shardings

SHAPES = {"layers/q/kernel": (3, 16, 24), "layers/q/bias": (3, 24), "norm/scale": (16,), "embedding": (40, 16)}
ABSTRACT = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in SHAPES.items()}


def settings(**changed):
    config = default_config().optimizer
    config.update({"learning_rate": 1e-2, "clip_norm": 1e9, **changed})
    return config


def values(seed):
    rng = np.random.default_rng(seed)
    return {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in SHAPES.items()}


def first_update(config):
    optimizer = make_optimizer(config, lambda count: config.learning_rate, ABSTRACT)
    parameters, gradients = values(0), values(1)
    return optimizer.update(gradients, optimizer.init(parameters), parameters)[0], gradients


def test_muon_steps_kernels_along_the_orthogonal_factor_of_each_layer():
    updates, gradients = first_update(settings(name="muon"))
    for layer in range(3):
        u, _, vt = np.linalg.svd(np.asarray(gradients["layers/q/kernel"][layer]), full_matrices=False)
        step = np.asarray(updates["layers/q/kernel"][layer])
        cosine = -np.sum(step * (u @ vt)) / np.linalg.norm(step) / np.linalg.norm(u @ vt)
        assert cosine > 0.97  # five Newton-Schulz steps leave singular values within [0.7, 1.2]
        assert np.sqrt(np.mean(step**2)) == pytest.approx(1e-2 * MUON_RMS, rel=0.2)


def test_everything_but_kernels_is_stepped_as_by_adamw():
    muon, _ = first_update(settings(name="muon"))
    adamw, _ = first_update(settings(name="adamw"))
    for path in set(SHAPES) - {"layers/q/kernel"}:
        np.testing.assert_allclose(muon[path], adamw[path], rtol=1e-5, atol=1e-8)
    np.testing.assert_raises(AssertionError, np.testing.assert_allclose, *(u["layers/q/kernel"] for u in (muon, adamw)))


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_weight_decay_spares_norms_and_biases(name):
    plain, _ = first_update(settings(name=name))
    decayed, _ = first_update(settings(name=name, weight_decay=0.5))
    parameters = values(0)
    for path in SHAPES:
        expected = -0.5 * 1e-2 * parameters[path] if path in ("layers/q/kernel", "embedding") else 0
        np.testing.assert_allclose(decayed[path] - plain[path], expected + jnp.zeros(SHAPES[path]), atol=1e-7)


def test_adamw_is_optax_own():
    config = settings()
    optimizer = make_optimizer(config, lambda count: 1e-2, ABSTRACT)
    reference = optax.adamw(1e-2, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=0.0)
    state, expected = optimizer.init(values(0)), reference.init(values(0))
    for seed in range(1, 4):
        updates, state = optimizer.update(values(seed), state, values(0))
        theirs, expected = reference.update(values(seed), expected, values(0))
        jax.tree.map(np.testing.assert_array_equal, updates, theirs)
        jax.tree.map(np.testing.assert_array_equal, _adam(state), _adam(expected))


def test_gradients_are_clipped_by_one_factor_as_optax_clips():
    clip = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2, b1=0.9, b2=0.95, weight_decay=0.0))
    optimizer = make_optimizer(settings(clip_norm=0.5), lambda count: 1e-2, ABSTRACT)
    assert optax.tree.norm(values(1)) > 0.5
    mine, reference = (_adam(one.update(values(1), one.init(values(0)), values(0))[1]) for one in (optimizer, clip))
    for path in SHAPES:
        np.testing.assert_allclose(mine.mu[path], reference.mu[path], rtol=1e-5)

    def divisions(transformation):  # of whole arrays
        state = transformation.init(values(0))
        text = str(jax.make_jaxpr(transformation.update)(values(1), state, values(0)))
        return len(re.findall(r"f32\[\d[\d,]*\] = div", text))

    # None beyond AdamW's own.
    assert divisions(optimizer) == divisions(optax.adamw(1e-2)) < divisions(clip)


def _adam(state) -> optax.ScaleByAdamState:
    def found(leaf):
        return isinstance(leaf, optax.ScaleByAdamState)

    return next(filter(found, jax.tree.leaves(state, is_leaf=found)))


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_what_is_not_sound_changes_nothing_but_the_place_in_the_schedule(name):
    optimizer = make_optimizer(settings(name=name), learning_rate(settings(), 10), ABSTRACT)
    parameters = values(0)
    _, before = optimizer.update(values(1), optimizer.init(parameters), parameters)
    broken = {path: jnp.full_like(value, jnp.nan) for path, value in values(2).items()}
    _, after = optimizer.update(broken, before, parameters, finite=jnp.bool_(False))

    def is_place(leaf):
        return isinstance(leaf, optax.ScaleByScheduleState)

    (stored, tree), (found, same) = (jax.tree.flatten(state, is_leaf=is_place) for state in (before, after))
    assert tree == same and sum(map(is_place, stored)) >= 1
    for old, new in zip(stored, found, strict=True):
        if is_place(old):
            assert new.count == old.count + 1
        else:
            np.testing.assert_array_equal(new, old)


def test_moments_are_not_copied_before_they_are_written_over():
    """XLA copies them where new ones are computed twice, as with optax's own AdamW; ours are written in place."""
    ours, plain = make_optimizer(settings(), lambda count: 1e-2, ABSTRACT), optax.adamw(1e-2)

    def mine(gradients, state, parameters, finite):
        return ours.update(gradients, state, parameters, finite=finite)

    def usual(gradients, state, parameters, finite):
        updates, stepped = plain.update(gradients, state, parameters)
        return updates, jax.tree.map(lambda new, old: jnp.where(finite, new, old), stepped, state)

    def copies(init, update):
        def step(parameters, state, gradients):
            gradients = jax.tree.map(jnp.sin, gradients)
            finite = jnp.isfinite(optax.tree.norm(gradients))
            updates, state = update(gradients, state, parameters, finite)
            moved = jax.tree.map(lambda p, u: jnp.where(finite, p + u, p), parameters, updates)
            return moved, state

        shapes = {path: jax.ShapeDtypeStruct((128, 1024), jnp.float32) for path in SHAPES}
        state = jax.eval_shape(init, shapes)
        text = jax.jit(step, donate_argnums=(0, 1)).lower(shapes, state, shapes).compile().as_text()
        return text.count("f32[128,1024]{1,0} copy(")

    assert copies(ours.init, mine) == 0
    assert copies(plain.init, usual) > 0  # otherwise ours is no longer needed


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_lie_where_their_parameters_lie(name):
    mesh = make_mesh(MeshShape(data=1, fsdp=8, tensor=1))
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    shardings = {path: split if path == "layers/q/kernel" else NamedSharding(mesh, PartitionSpec()) for path in SHAPES}
    optimizer = make_optimizer(settings(name=name), learning_rate(settings(), 10), ABSTRACT)
    placed = optimizer_shardings(optimizer, ABSTRACT, shardings, mesh)
    optimizer_state = jax.jit(optimizer.init, out_shardings=placed)(values(0))
    stored = [leaf for leaf in jax.tree.leaves(optimizer_state) if leaf.shape == SHAPES["layers/q/kernel"]]
    assert len(stored) == {"adamw": 2, "muon": 1}[name]
    assert all(leaf.sharding == split for leaf in stored)


def test_adafactor_is_optax_own_under_our_learning_rate():
    updates, gradients = first_update(settings(name="adafactor"))
    own = optax.adafactor(1e-2, multiply_by_parameter_scale=False, clipping_threshold=1.0)
    expected, _ = own.update(gradients, own.init(values(0)), values(0))
    for path in SHAPES:
        np.testing.assert_allclose(updates[path], expected[path], rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_a_part_of_the_model_has_a_learning_rate_of_its_own(name):
    shapes = {
        "vision/blocks/q/kernel": (16, 8),
        "connector/fc1/bias": (8,),
        "decoder/q/adapter/a": (16, 4),
        "embedding": (8, 4),
    }
    rng = np.random.default_rng(0)
    stored = {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in shapes.items()}
    abstract = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()}

    def updates(**scales):
        config = settings(name=name, weight_decay=0.1)
        config.lr_multipliers.update(scales)
        optimizer = make_optimizer(config, lambda count: 1e-2, abstract)
        return optimizer.update(stored, optimizer.init(stored), stored)[0]

    plain, scaled = updates(), updates(vision=0.1, connector=3.0, adapter=2.0)
    for path, factor in zip(shapes, (0.1, 3.0, 2.0, 1.0), strict=True):
        np.testing.assert_allclose(scaled[path], factor * plain[path], rtol=1e-6)
