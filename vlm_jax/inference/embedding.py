"""What a model that answers is asked, so that one hidden state stands for a text, an image, or both.

The model is asked to sum them up in one word, and the vector is the hidden state, after the last norm, at which it
would begin that word: E5-V (Jiang et al. 2024, https://arxiv.org/abs/2407.12580) for images and texts of multimodal
models, after PromptEOL (Jiang et al. 2023) for texts. The prompts are E5-V's; for both together, which it has none for,
the words are put alike. E5-V trains for it on pairs of texts. Without that, texts and images lie apart from each other,
and retrieval is far behind that of a CLIP or SigLIP, which are trained on nothing else.
"""

import numpy as np
from jaxtyping import Float32

from vlm_jax.errors import InputError
from vlm_jax.processing.chat import Message
from vlm_jax.processing.images import Source

NOTHING = "there is nothing to embed: give a text, an image, or both"
_ASKED = {
    (True, False): "Summary above sentence in one word: ",
    (False, True): "Summary above image in one word: ",
    (True, True): "Summary above image and sentence in one word: ",
}
"""By whether there are a text and an image."""


def conversation(text: str | None, image: Source | None) -> list[Message]:
    """The question whose first token of an answer the vector is read off at.

    Raises:
      InputError: there is neither.
    """
    if text is None and image is None:
        raise InputError(NOTHING)
    asked = _ASKED[text is not None, image is not None]
    words = [part for part in (text, asked) if part is not None]
    content = [] if image is None else [{"type": "image", "image": image}]
    return [{"role": "user", "content": [*content, {"type": "text", "text": "\n".join(words)}]}]


def unit(vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """At unit length.

    Raises:
      InputError: one of them is not a number, or has no direction.
    """
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise InputError("the model computes NaN, or zeros; load it in float32 (dtype='float32'), or copy it again")
    return vectors / norms
