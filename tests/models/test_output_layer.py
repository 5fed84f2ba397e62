"""An output layer whose words are divided over a mesh: the same loss and gradients, and the table is never gathered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vlm_jax.models import output_layer
from vlm_jax.parallel.collectives import collectives
from vlm_jax.parallel.mesh import MeshShape, make_mesh
from vlm_jax.training.loss import cross_entropy, segment_losses

ROWS, POSITIONS, WIDTH, WORDS = 8, 300, 64, 8192


def inputs():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(WORDS, WIDTH)).astype(np.float32)
    hidden = rng.normal(size=(ROWS, POSITIONS, WIDTH)).astype(np.float32)
    targets = rng.integers(0, WORDS, (ROWS, POSITIONS)).astype(np.int32)
    weights = rng.integers(0, 2, (ROWS, POSITIONS)).astype(np.float32)
    return tuple(map(jnp.asarray, (table, hidden, targets, weights)))


def loss(table, hidden, targets, weights, *, divided):
    head = output_layer.divided(table, dtype=hidden.dtype) if divided else (lambda x: x @ table.T)
    segments = (jnp.arange(POSITIONS) // 150 + 1) * jnp.ones((ROWS, 1), jnp.int32)
    sums = segment_losses(head, hidden, targets, weights, segments, 2)
    return cross_entropy(head, hidden, targets, weights) + jnp.sum(sums**2) / 1000


@pytest.mark.parametrize("shape", [(1, 8, 1), (1, 4, 2), (2, 4, 1)])
def test_loss_and_gradients_are_those_of_a_whole_table(shape):
    table, *rest = inputs()
    expected = jax.value_and_grad(loss, (0, 1))(table, *rest, divided=False)
    mesh = make_mesh(MeshShape(*shape))
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    lying = (NamedSharding(mesh, PartitionSpec("tensor", "fsdp")), rows, rows, rows)
    with jax.set_mesh(mesh):
        assert output_layer.divides(WORDS, ROWS, POSITIONS)
        step = jax.jit(lambda *args: jax.value_and_grad(loss, (0, 1))(*args, divided=True), in_shardings=lying)
        compiled = step.lower(table, *rest).compile()
        found = compiled(*(jax.device_put(one, place) for one, place in zip((table, *rest), lying, strict=True)))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for mine, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * np.abs(theirs).max())
    # Nothing as large as the table goes to a device: parts of it change places, and hidden states go round.
    sent = sum(size for _, size in collectives(compiled.as_text()).values())
    assert sent < 6 * ROWS * POSITIONS * WIDTH * 4 + 4 * WORDS * WIDTH * 4 // 8


@pytest.mark.parametrize(
    ("words", "rows", "positions", "shape"),
    [
        (8192, 8, 1024, (1, 8, 1)),  # more positions than words
        (8191, 8, 8, (1, 8, 1)),  # words that do not divide
        (8192, 8, 8, (8, 1, 1)),  # nothing is divided over fsdp
        (8192, 6, 8, (1, 8, 1)),  # rows that do not divide
    ],
)
def test_a_table_stays_as_it_lies_where_nothing_is_gained(words, rows, positions, shape):
    with jax.set_mesh(make_mesh(MeshShape(*shape))):
        assert not output_layer.divides(words, rows, positions)
    assert not output_layer.divides(8192, 8, 8)  # without a mesh
