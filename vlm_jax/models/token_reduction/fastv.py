"""FastV (arXiv:2403.06764): above one layer of the decoder, the tokens that the question attended to most.

What is asked about an image is read up to its last token; that token's attention in this layer, as the mean over heads,
weighs the image's tokens (`in_decoder`). PyramidDrop does the same at several depths (`pyramiddrop`).
"""

from jaxtyping import Array, Bool

from vlm_jax.models.token_reduction.candidates import Candidates, top


def choose(candidates: Candidates) -> Bool[Array, " n"]:
    """Which tokens stay."""
    return top(candidates, candidates.importance)
