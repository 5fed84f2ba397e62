"""Next-token cross-entropy on supervised positions only, without ever holding the full logits.

The gradient of a chunk's logits is softmax minus target, known as soon as the logits are: so it is taken in the forward
pass, while they are at hand, and the backward pass only scales what was found. Three products with the vocabulary
instead of the four of a chunk that is computed again, and two where the vocabulary is frozen, as in Liger Kernel's
fused loss (Hsu et al. 2024).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

CHUNK = 256
"""Supervised positions of a row whose logits exist at one time, at most: 256 × 152k in float32 are 155 MB a row."""
_EVEN = 8
"""A chunk is a multiple of it, as TPUs lay out arrays."""


def cross_entropy(
    head: Callable, hidden: Float[Array, "b s d"], targets: Int[Array, "b s"], weights: Float[Array, "b s"]
) -> Float[Array, ""]:
    """Σ weight · −log p(target) over supervised positions, whose hidden states are given.

    `head` maps [..., d] to float32 logits [..., vocab]; it may close over parameters, which get their gradient.
    Positions go through it in chunks. Weights are constants, and `jax.jvp` of the sum is refused.
    """
    apply, closed_over, chunks = _in_chunks(head, hidden, targets, weights)
    return _summed(apply, closed_over, *chunks)


def segment_losses(
    head: Callable,
    hidden: Float[Array, "b s d"],
    targets: Int[Array, "b s"],
    weights: Float[Array, "b s"],
    segments: Int[Array, "b s"],
    count: int,
) -> Float[Array, "b segments"]:
    """As `cross_entropy`, a sum for each segment of each row: what preference tuning compares.

    How much a segment's gradient counts is known only behind the sums, so logits are computed a second time for it:
    one product with the vocabulary more than `cross_entropy` takes.

    Args:
      segments: the segment of each position, counted from 1; 0 is none.
      count: segments of a row at most.
    """
    apply, closed_over, chunks = _in_chunks(head, hidden, targets, weights, segments)
    return _segment_sums(apply, count, closed_over, *chunks)


def _in_chunks(head: Callable, hidden, targets, weights, *more):
    """The head as a function of a chunk and of what it closes over, that, and all arrays in chunks."""
    weights = jax.lax.stop_gradient(weights)
    # As many chunks as CHUNK asks for, and no more padding than it takes to make them equal.
    count = -(-targets.shape[1] // CHUNK)
    width = -(-targets.shape[1] // (_EVEN * count)) * _EVEN
    pad = -targets.shape[1] % width

    def chunks(x):
        x = jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, width, *x.shape[2:]), 1, 0)

    hidden = chunks(hidden)
    # What the head closes over becomes an argument. `jax.closure_convert` would keep it, and hand it out again for a
    # head that is the same object by then with other parameters.
    traced = jax.make_jaxpr(head)(hidden[0])

    def apply(hidden, *consts):
        return jax.core.eval_jaxpr(traced.jaxpr, consts, hidden)[0]

    return apply, traced.consts, (hidden, *map(chunks, (targets, weights, *more)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(head, consts, hidden, targets, weights) -> Float[Array, ""]:
    """Σ over chunks [n, b, width, …]; `consts` is what the head closed over."""

    def one(total, chunk):
        hidden, targets, weights = chunk
        return total + _losses(head(hidden, *consts), targets, weights)[0], None

    return jax.lax.scan(one, jnp.float32(0), (hidden, targets, weights))[0]


def _losses(
    logits: Float[Array, "b t v"], targets: Int[Array, "b t"], weights: Float[Array, "b t"]
) -> tuple[Float[Array, ""], Float[Array, "b t v"]]:
    """The weighted sum of a chunk's losses, and its gradient."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exponents = jnp.exp(shifted)
    total = exponents.sum(axis=-1)
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    chosen = jnp.sum(jnp.where(is_target, shifted, 0), axis=-1)  # not looked up: words may be divided over devices
    gradient = exponents * (weights / total)[..., None] - jnp.where(is_target, weights[..., None], 0)
    return jnp.sum(weights * (jnp.log(total) - chosen)), gradient


def _forward(head, consts, hidden, targets, weights):
    # Parameters that nothing asks a gradient of, a frozen vocabulary say, are not multiplied for one.
    moved = [number for number, leaf in enumerate(consts) if leaf.perturbed]
    consts, hidden = [leaf.value for leaf in consts], hidden.value

    def one(carry, chunk):
        total, gradients = carry
        hidden, targets, weights = chunk

        def apply(hidden, *some):
            whole = list(consts)
            for number, leaf in zip(moved, some, strict=True):
                whole[number] = leaf
            return head(hidden, *whole)

        logits, pull = jax.vjp(apply, hidden, *(consts[number] for number in moved))
        loss, gradient = _losses(logits, targets, weights)
        hidden, *found = pull(gradient)
        return (total + loss, jax.tree.map(jnp.add, gradients, found)), hidden

    empty = [jnp.zeros_like(consts[number]) for number in moved]
    (total, found), hidden = jax.lax.scan(one, (jnp.float32(0), empty), (hidden, targets.value, weights.value))
    gradients = [None] * len(consts)
    for number, gradient in zip(moved, found, strict=True):
        gradients[number] = gradient
    return total, (gradients, hidden)


def _backward(head, residuals, scale):
    gradients, hidden = residuals

    def scaled(leaf):
        return None if leaf is None else (leaf * scale).astype(leaf.dtype)

    return [scaled(leaf) for leaf in gradients], scaled(hidden), None, None


_summed.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _segment_sums(head, count, consts, hidden, targets, weights, segments) -> Float[Array, "b segments"]:
    def one(sums, chunk):
        hidden, targets, weights, segments = chunk
        losses = weights * _negative_log_probabilities(head(hidden, *consts), targets)
        return sums + _by_segment(losses, segments, count), None

    zero = jnp.zeros((hidden.shape[1], count), jnp.float32)
    return jax.lax.scan(one, zero, (hidden, targets, weights, segments))[0]


def _negative_log_probabilities(logits: Float[Array, "b t v"], targets: Int[Array, "b t"]) -> Float[Array, "b t"]:
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(jnp.where(is_target, logits, 0), axis=-1)


def _by_segment(values: Float[Array, "b t"], segments: Int[Array, "b t"], count: int) -> Float[Array, "b segments"]:
    mine = segments[..., None] == jnp.arange(1, count + 1)
    return jnp.sum(jnp.where(mine, values[..., None], 0), axis=1)


def _segment_forward(head, count, consts, hidden, targets, weights, segments):
    return _segment_sums(head, count, consts, hidden, targets, weights, segments), (
        consts,
        hidden,
        targets,
        weights,
        segments,
    )


def _segment_backward(head, count, residuals, scales):
    consts, hidden, targets, weights, segments = residuals
    # A position counts what its segment counts: then this is the gradient of one weighted sum.
    scales = jnp.pad(scales, ((0, 0), (1, 0)))  # segment 0 is none
    weights = weights * jnp.take_along_axis(scales[None], segments, axis=-1)
    _, pull = jax.vjp(lambda consts, hidden: _summed(head, consts, hidden, targets, weights), consts, hidden)
    return *pull(jnp.float32(1)), None, None, None


_segment_sums.defvjp(_segment_forward, _segment_backward)
