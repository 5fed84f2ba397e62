"""Supervised fine-tuning: next-token cross-entropy on the tokens that the assistant is to say."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from vlm_jax.processing.rows import Batch
from vlm_jax.training.loss import cross_entropy


def sft(head: Callable, hidden: Float[Array, "b s d"], batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(Σ weight · −log p(target), Σ weight) over all rows of the batch together.

    transformers divides by the labels of a batch like this, and LLaMA-Factory by their weights. Tokens weigh 1 unless
    their turn was given a weight; a turn of weight 0 is as if its tokens were a prompt, and a weight that all turns
    have changes nothing.
    """
    return cross_entropy(head, hidden, batch.loss_targets, batch.loss_weights), jnp.sum(batch.loss_weights)
