"""What a run minimises, one file each: `sft`, and where another one (preference tuning, say) has its place.

An objective is a parameter of `trainer.Trainer` and of `step.make_loss`.
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from vlm_jax.processing.rows import Batch

Objective = Callable[[Callable, Float[Array, "b s d"], Batch], tuple[Array, Array]]
"""(head, hidden states of the supervised positions, batch) → (a sum over the batch, the weight that makes it a mean).

`head` maps hidden states to float32 logits. Sums and weights of parts of a batch add up to those of the whole.
"""
