"""The chunked loss against the plain formula over full logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.training.loss import cross_entropy


@pytest.mark.parametrize("supervised", [1, 7, 256, 300])
def test_chunked_loss_and_its_gradient_equal_the_plain_formula(supervised):
    rng = np.random.default_rng(supervised)
    hidden = jnp.asarray(rng.normal(size=(2, 40, 8)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(8, 50)), jnp.float32)
    batch = {
        "loss_index": rng.integers(0, 40, (2, supervised)).astype(np.int32),
        "loss_targets": rng.integers(0, 50, (2, supervised)).astype(np.int32),
        "loss_weights": rng.integers(0, 2, (2, supervised)).astype(np.float32),
    }

    batch = {name: jnp.asarray(array) for name, array in batch.items()}

    def chunked(hidden, kernel):
        return cross_entropy(lambda x: x @ kernel, hidden, batch)

    def plain(hidden, kernel):
        log_probabilities = jax.nn.log_softmax(hidden @ kernel)
        rows = np.arange(2)[:, None]
        chosen = log_probabilities[rows, batch["loss_index"], batch["loss_targets"]]
        return -(chosen * batch["loss_weights"]).sum(), batch["loss_weights"].sum()

    (value, weight), gradients = jax.value_and_grad(chunked, (0, 1), has_aux=True)(hidden, kernel)
    (expected, count), reference = jax.value_and_grad(plain, (0, 1), has_aux=True)(hidden, kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert weight == count
    for mine, theirs in zip(gradients, reference, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
