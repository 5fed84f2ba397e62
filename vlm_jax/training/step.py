"""One training step: from a batch to new parameters, as one compiled function.

Parameters are two flat dictionaries, {path: array}: what trains, and what is frozen. The model is put together
around them inside the step, so full fine-tuning, frozen parts and (later) adapters share this one step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_model, replace
from vlm_jax.models.vlm import Batch
from vlm_jax.training.loss import cross_entropy


def make_loss(config: VLMConfig, *, dtype, implementation: str, remat: str) -> Callable[[Flat, Flat, Batch], tuple]:
    """`loss(trainable, frozen, batch) -> (mean loss per supervised token, supervised tokens)`."""
    graph, state = nnx.split(abstract_model(config))

    def loss(trainable: Flat, frozen: Flat, batch: Batch):
        model = nnx.merge(graph, replace(state, {**trainable, **frozen}))
        hidden = model(batch, dtype=dtype, implementation=implementation, remat=remat)
        total, weight = cross_entropy(model.logits, hidden, batch)
        return total / jnp.maximum(weight, 1.0), weight

    return loss


def make_step(loss: Callable, optimizer: optax.GradientTransformation, schedule: optax.Schedule) -> Callable:
    """`step(trainable, moments, frozen, batch, number) -> (trainable, moments, metrics)`, to be jitted.

    `number` counts finished steps; the metrics are scalars that stay on the device.
    """

    def step(trainable: Flat, moments, frozen: Flat, batch: Batch, number):
        (value, weight), gradients = jax.value_and_grad(loss, has_aux=True)(trainable, frozen, batch)
        updates, moments = optimizer.update(gradients, moments, trainable)
        metrics = {
            "loss": value,
            "supervised_tokens": weight,
            "gradient_norm": optax.global_norm(gradients),
            "learning_rate": schedule(number),
        }
        return optax.apply_updates(trainable, updates), moments, metrics

    return step
