"""What layers keep for the backward pass, and what they compute again (rematerialisation, gradient checkpointing).

Layers give names to what is worth keeping (`kept`); a policy says which of them are. A layer's input is always kept.
"""

from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

ATTENTION, PROJECTION, MLP = NAMES = ("attention", "projection", "mlp")
"""The attention kernel's outputs; queries, keys, values and the output projection; what a layer's MLP activates."""

_only = jax.checkpoint_policies.save_only_these_names
POLICIES: dict[str, Callable | None] = {
    # name -> what a layer keeps; None: everything
    "none": None,
    "products": _only(*NAMES),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=list(NAMES),
        offload_src="device",
        offload_dst="pinned_host",
    ),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "projections": _only(ATTENTION, PROJECTION),
    "attention": _only(ATTENTION),
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""The least recomputation first."""
BY_RECOMPUTATION = ("none", "products", "projections", "attention", "full")
"""The policies that `train.remat=auto` tries, the least recomputation first."""


def kept(x: Array, name: str) -> Array:
    """The same, under one of `NAMES`: policies keep it by that."""
    return checkpoint_name(x, name)
