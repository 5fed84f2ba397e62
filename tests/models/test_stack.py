"""A stack of layers scanned, and the same unrolled: what comes out, what is kept, and every gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny_models import PHOTOS, assistant, noise, save_tiny, user
from vlm_jax.inference.loading import load
from vlm_jax.models.layers import Linear
from vlm_jax.models.stack import Stack
from vlm_jax.parallel.program_cost import flops
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import RowSpec, assemble, stack
from vlm_jax.training.step import make_loss


@pytest.mark.parametrize("remat", ["none", "full"])
def test_layers_that_differ_by_place_and_take_slices_of_their_own(remat):
    layers = Stack(lambda rngs: Linear(5, 5, bias=True, std=0.5, dtype=jnp.float32, rngs=rngs), 4, nnx.Rngs(0))
    graph, parameters = nnx.split(layers)

    def apply(layer, x, shift, place):
        y = jnp.tanh(layer(x) * (place + 1) + shift["by"])
        return y, {"mean": y.mean(), "place": place}

    def run(parameters, x, unroll, **how):
        xs = {"by": jnp.arange(4.0)}
        y, kept = nnx.merge(graph, parameters)(x, apply, xs=xs, period=2, remat=remat, unroll=unroll, **how)
        return jnp.sum(jnp.sin(y)) + kept["mean"].sum(), (y, kept)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    scanned, written = (jax.grad(run, (0, 1), has_aux=True)(parameters, x, unroll) for unroll in (False, True))
    assert written[1][1]["place"].tolist() == [0, 1, 0, 1]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), scanned, written)

    def narrower(layer, x, shift, place):
        return apply(layer, x[1:], shift, place)

    y, _ = run(parameters, x, True, last=narrower)[1]
    np.testing.assert_array_equal(y, written[1][0][1:])


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize("period", [1, 2])
def test_ranges_one_after_the_other_equal_all_layers_and_take_slices_of_their_own(period, remat, unroll):
    layers = Stack(lambda rngs: Linear(5, 5, bias=True, std=0.5, dtype=jnp.float32, rngs=rngs), 6, nnx.Rngs(0))
    graph, parameters = nnx.split(layers)

    def apply(layer, x, shift, place):
        y = jnp.tanh(layer(x) * (place + 1) + shift)
        return y, y.mean()

    def run(parameters, x, ends):
        y, means, start = x, [], 0
        for stop in ends:
            y, some = nnx.merge(graph, parameters)(
                y, apply, xs=jnp.arange(6.0), period=period, remat=remat, unroll=unroll, start=start, stop=stop
            )
            means, start = [*means, some], stop
        means = jnp.concatenate(means)
        return jnp.sum(jnp.sin(y)) + jnp.sum(means * jnp.arange(6)), means

    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    whole, parts = (jax.value_and_grad(run, (0, 1), has_aux=True)(parameters, x, ends) for ends in ((6,), (2, 4, 6)))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), whole, parts)


def test_a_range_that_is_none_is_refused():
    layers = Stack(lambda rngs: Linear(5, 5, bias=True, std=0.5, dtype=jnp.float32, rngs=rngs), 4, nnx.Rngs(0))
    for start, stop, period in ((0, 5, 1), (2, 2, 1), (-1, 2, 1), (1, 4, 2)):
        with pytest.raises(ValueError, match=f"layers {start} to {stop} of 4 in periods of {period}"):
            layers(jnp.ones((2, 5)), lambda layer, x, _, place: (layer(x), None), start=start, stop=stop, period=period)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_ranges_make_no_second_copy_of_the_kernels(remat):
    """In the whole step of a frozen stack, forwards and backwards: what the program needs beside its arguments."""
    depth, width = 8, 256
    make = functools.partial(Linear, width, width, bias=False, std=0.1, dtype=jnp.float32)
    graph, parameters = nnx.split(Stack(lambda rngs: make(rngs=rngs), depth, nnx.Rngs(0)))
    kernels = depth * width * width * 4

    def loss(x, parameters, cuts):
        start = 0
        for stop in (*cuts, depth):
            model = nnx.merge(graph, parameters)
            x, _ = model(x, lambda layer, x, _, place: (jnp.tanh(layer(x)), None), remat=remat, start=start, stop=stop)
            start, x = stop, x[: len(x) // 2]
        return x.sum()

    def temporaries(cuts):
        program = jax.jit(jax.grad(loss), static_argnums=2).lower(jnp.ones((4, width)), parameters, cuts).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporaries((2, 4)) < kernels / 2


def test_the_loss_of_a_model_that_is_written_out_and_its_gradients(tmp_path):
    save_tiny(tmp_path, layers=3, depth=4, global_blocks=(1, 3))
    model = load(tmp_path, dtype="float32")
    shown = noise(tmp_path, 28 * 5, 28 * 3), noise(tmp_path, 28, 56)
    rows = [
        [[user("What does VQA stand for?"), assistant("Visual question answering")], [user("So?"), assistant("No")]],
        [[user("What is the cat called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")]],
        [[user("Which one?", *shown), assistant("First"), user("And?"), assistant("None of them")]],
    ]
    batch = stack([assemble([model.encode(one) for one in row], RowSpec(Size(192, 512, 24), 588, 4)) for row in rows])

    def loss(unroll):
        return make_loss(model.config, dtype=np.float32, implementation="reference", remat="none", unroll=unroll)

    def counted(unroll):
        return flops(jax.make_jaxpr(loss(unroll))(model.parameters, {}, batch))

    def found(unroll):
        return jax.jit(jax.value_and_grad(loss(unroll), has_aux=True))(model.parameters, {}, batch)

    (scanned, expected), (written, gradients) = found(False), found(True)
    decoder, (rows, tokens), supervised = model.config.decoder, batch.tokens.shape, batch.loss_index.shape[1]
    spared = rows * (tokens - supervised) * 2 * 3 * decoder.hidden * decoder.mlp
    assert counted(False) - counted(True) == spared  # the last MLP of what predicts nothing
    np.testing.assert_allclose(written, scanned, rtol=1e-6)
    for path, gradient in gradients.items():
        size = np.linalg.norm(expected[path])
        assert np.linalg.norm(gradient - expected[path]) <= 1e-5 * size, path
        assert size > 0, path
