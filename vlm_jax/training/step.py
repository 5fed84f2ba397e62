"""One training step: from a batch to new parameters, as one compiled function.

Parameters are two flat dictionaries, {path: array}: what trains, and what is frozen. The model is put together
around them inside the step, so full fine-tuning, frozen parts and adapters share this one step.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_model, replace
from vlm_jax.processing.rows import Batch
from vlm_jax.training.objectives import Objective
from vlm_jax.training.objectives.sft import sft


def make_loss(
    config: VLMConfig,
    *,
    dtype,
    implementation: str,
    remat: str,
    unroll: bool = False,
    attach: Sequence[Callable] = (),
    objective: Objective = sft,
) -> Callable[..., tuple]:
    """`loss(trainable, frozen, batch) -> (mean of the objective, its weight)`.

    Args:
      objective: what is minimised, from the hidden states of supervised positions.
      attach: what gives the model the layers that its parameters have beside a plain one's (`selection.Selection`);
        what dropout draws from is expected among `frozen`.
    """
    graph, state = nnx.split(abstract_model(config, attach=attach))

    def loss(trainable: Flat, frozen: Flat, batch: Batch):
        model = nnx.merge(graph, replace(state, {**trainable, **frozen}))
        options = {"dtype": dtype, "implementation": implementation, "remat": remat, "unroll": unroll}
        hidden = model(batch, at=batch.loss_index, **options)
        total, weight = objective(model.output_layer(hidden), hidden, batch)
        return total / _or_one(weight), weight

    return loss


def make_step(
    loss: Callable,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: optax.Schedule,
    *,
    draw: Callable[[Array], Flat] = lambda key: {},
    seed: int = 0,
    gradient_accumulation: int = 1,
) -> Callable:
    """`step(trainable, optimizer_state, frozen, batch, number) -> (trainable, optimizer_state, metrics)`, to be jitted.

    `number` counts finished steps; the metrics are scalars that stay on the device.

    Args:
      optimizer: takes `finite` (`optimizer.make_optimizer`).
      draw: what a step draws at random (`adapters.lora.seeds`), from a key.
      gradient_accumulation: so many parts of the rows go through the model one after another; the gradient is that of
        the whole batch, every supervised token counting what it weighs.
    """

    gradients_of = _gradients(loss, draw, gradient_accumulation)

    def step(trainable: Flat, optimizer_state, frozen: Flat, batch: Batch, number):
        key = jax.random.fold_in(jax.random.key(seed), number)
        (value, weight), gradients = gradients_of(trainable, frozen, batch, key)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        # A step whose loss or gradient is not finite changes nothing but the place in the schedule.
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, trainable, finite=finite)
        moved = optax.apply_updates(trainable, updates)
        trainable = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, trainable)
        metrics = {
            "loss": value,
            "tokens": jnp.sum(batch.segment_ids > 0),
            "visual_tokens": jnp.sum(batch.visual_index >= 0),
            "supervised_tokens": jnp.sum(batch.loss_weights > 0),
            "padding": jnp.mean(batch.segment_ids == 0),
            "patch_padding": jnp.mean(batch.image_ids == 0),
            "gradient_norm": norm,
            "learning_rate": schedule(number),
        }
        return trainable, optimizer_state, metrics

    return step


def _gradients(loss: Callable, draw: Callable[[Array], Flat], parts: int) -> Callable:
    """`gradients_of(trainable, frozen, batch, key)`: (mean loss, its weight), and the gradient of the mean."""

    def gradients_of(trainable: Flat, frozen: Flat, batch: Batch, key):
        if parts == 1:
            return jax.value_and_grad(loss, has_aux=True)(trainable, {**frozen, **draw(key)}, batch)

        def total(trainable, rows, key):
            mean, weight = loss(trainable, {**frozen, **draw(key)}, rows)
            return mean * weight, weight

        def part(carry, chunk):
            rows, number = chunk
            found = jax.value_and_grad(total, has_aux=True)(trainable, rows, jax.random.fold_in(key, number))
            return jax.tree.map(jnp.add, carry, found), None

        zero = ((jnp.float32(0), jnp.float32(0)), jax.tree.map(jnp.zeros_like, trainable))
        chunks = jax.tree.map(lambda rows: _parts(rows, parts), batch)
        ((value, weight), gradients), _ = jax.lax.scan(part, zero, (chunks, jnp.arange(parts)))
        share = 1 / _or_one(weight)
        return (value * share, weight), jax.tree.map(lambda leaf: leaf * share, gradients)

    return gradients_of


def _or_one(weight: Array) -> Array:
    """What a sum is divided by for a mean: where nothing is supervised, the sum is 0 and so is the mean."""
    return jnp.where(weight > 0, weight, 1.0)


def _parts(rows: Array, count: int) -> Array:
    """[rows, …] as [count, rows / count, …]: every part takes rows of every device that holds some."""
    return jnp.moveaxis(rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]), 1, 0)
