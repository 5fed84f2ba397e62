"""The chunked loss against the plain formula over full logits."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.parallel.program_cost import flops
from vlm_jax.training.loss import cross_entropy, segment_losses


def case(supervised: int):
    """Hidden states [2, supervised, 8], a kernel [8, 50], and what is supervised in two rows."""
    rng = np.random.default_rng(supervised)
    hidden = jnp.asarray(rng.normal(size=(2, supervised, 8)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(8, 50)), jnp.float32)
    targets = rng.integers(0, 50, (2, supervised)).astype(np.int32)
    weights = rng.integers(0, 2, (2, supervised)).astype(np.float32)
    return hidden, kernel, jnp.asarray(targets), jnp.asarray(weights)


@pytest.mark.parametrize("supervised", [1, 7, 256, 300])
def test_chunked_loss_and_its_gradient_equal_the_plain_formula(supervised):
    hidden, kernel, targets, weights = case(supervised)

    def chunked(hidden, kernel):
        return cross_entropy(lambda x: x @ kernel, hidden, targets, weights)

    def plain(hidden, kernel):
        log_probabilities = jax.nn.log_softmax(hidden @ kernel)
        chosen = jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
        return -(chosen * weights).sum()

    value, gradients = jax.value_and_grad(chunked, (0, 1))(hidden, kernel)
    expected, reference = jax.value_and_grad(plain, (0, 1))(hidden, kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for mine, theirs in zip(gradients, reference, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_weights_make_a_weighted_sum_beside_the_sum_of_the_weights():
    """In plain NumPy; the step divides the one by the other."""
    hidden, kernel, targets, _ = case(7)
    weights = np.random.default_rng(1).choice([0, 0.001, 0.3, 1, 2.5, 1000], (2, 7)).astype(np.float32)
    logits = np.asarray(hidden, np.float64) @ np.asarray(kernel, np.float64)
    chosen = np.take_along_axis(logits, np.asarray(targets)[..., None], axis=-1)[..., 0]
    losses = np.log(np.exp(logits).sum(-1)) - chosen
    total = cross_entropy(lambda x: x @ kernel, hidden, targets, jnp.asarray(weights))
    np.testing.assert_allclose(total, (weights * losses).sum(), rtol=1e-5)


@pytest.mark.parametrize(("differentiated", "expected"), [((0, 1), 3), ((0,), 2), ((), 1)])
def test_logits_are_taken_once_and_nothing_is_multiplied_for_what_is_frozen(differentiated, expected):
    hidden, kernel, targets, weights = case(300)

    def loss(hidden, kernel):
        return cross_entropy(lambda x: x @ kernel, hidden, targets, weights)

    traced = jax.make_jaxpr(jax.grad(loss, differentiated) if differentiated else loss)(hidden, kernel)
    slots = 2 * 304  # 300 positions of two rows, in two chunks of multiples of 8
    assert flops(traced) == expected * 2 * slots * 8 * 50


def test_the_gradient_follows_what_the_loss_is_multiplied_by_and_whatever_the_head_closes_over():
    """A head in bfloat16 with codes that are no numbers to differentiate, in a scan as accumulation has it."""
    hidden, kernel, targets, weights = case(40)
    codes = jnp.asarray(np.random.default_rng(0).integers(-3, 4, (8, 50)), jnp.int8)

    def head(x, kernel, codes):
        whole = (kernel + codes.astype(jnp.float32)).astype(jnp.bfloat16)
        return jnp.matmul(x.astype(jnp.bfloat16), whole, preferred_element_type=jnp.float32)

    def mine(kernel, hidden, codes):
        return 7 * cross_entropy(lambda x: head(x, kernel, codes), hidden, targets, weights)

    def plain(kernel, hidden, codes):
        logs = jax.nn.log_softmax(head(hidden, kernel, codes))
        logs = jnp.take_along_axis(logs, targets[..., None], axis=-1)[..., 0]
        return -7 * (logs * weights).sum()

    @functools.partial(jax.jit, static_argnums=(0,))
    def summed(loss, kernel, hidden, codes):
        def part(total, codes):
            return jax.tree.map(jnp.add, total, jax.grad(loss, (0, 1))(kernel, hidden, codes)), None

        return jax.lax.scan(part, (jnp.zeros_like(kernel), jnp.zeros_like(hidden)), codes)[0]

    both = jnp.stack([codes, codes[::-1]])
    for found, expected in zip(summed(mine, kernel, hidden, both), summed(plain, kernel, hidden, both), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02 * float(jnp.abs(expected).max()))


class Head:
    """As a model is: one object whose parameters change, with a bound method that is equal to itself."""

    def __init__(self, kernel):
        self.kernel = kernel

    def logits(self, x):
        return x @ self.kernel


def test_a_head_that_changed_is_read_anew_and_none_is_kept():
    hidden, kernel, targets, weights = case(7)
    head = Head(kernel)

    def loss():
        return float(cross_entropy(head.logits, hidden, targets, weights))

    def gradient(kernel):
        head.kernel = kernel
        return cross_entropy(head.logits, hidden, targets, weights)

    before = loss()
    head.kernel = jnp.zeros_like(kernel)
    assert loss() == pytest.approx(float(weights.sum()) * np.log(50), rel=1e-5) != before
    for scale in (1.0, 2.0):
        assert float(jnp.abs(jax.jit(jax.grad(gradient))(scale * kernel)).max()) > 0.1
    head.kernel = kernel
    loss()
    gone = weakref.ref(head)
    del head, loss, gradient
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("supervised", [5, 300])
def test_a_sum_for_each_segment_and_its_gradient_equal_the_plain_formula(supervised):
    """As preference tuning uses them: what a segment counts follows from the sums themselves."""
    hidden, kernel, targets, weights = case(supervised)
    segments = jnp.asarray(np.sort(np.random.default_rng(2).integers(0, 4, (2, supervised))), jnp.int32)

    def of_sums(sums):
        return jnp.sum(jnp.log1p(jnp.square(sums[:, 0] - 2 * sums[:, 1])) + 0.1 * sums[:, 2])

    def ours(hidden, kernel):
        return of_sums(segment_losses(lambda x: x @ kernel, hidden, targets, weights, segments, 3))

    def plain(hidden, kernel):
        log_probabilities = jax.nn.log_softmax(hidden @ kernel)
        losses = -weights * jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
        return of_sums(jnp.stack([jnp.where(segments == number, losses, 0).sum(1) for number in (1, 2, 3)], axis=1))

    value, gradients = jax.value_and_grad(ours, (0, 1))(hidden, kernel)
    expected, reference = jax.value_and_grad(plain, (0, 1))(hidden, kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for mine, theirs in zip(gradients, reference, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))
