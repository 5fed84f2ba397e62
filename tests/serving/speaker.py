"""A model that says one text, whatever it is asked: by its weights each token is followed by one other."""

from pathlib import Path

import numpy as np

import vlm_jax
from tests.tiny_models import ONE_LAYER, save_tiny


def load_speaker(folder: Path, text: str, *, endless: bool = False):
    """The layers add nothing to a token's embedding, by which the output layer knows what comes next.

    Args:
      text: no token of it may come twice; it follows the line break of "<|im_start|>assistant".
      endless: whether it begins anew where it ends.
    """
    save_tiny(folder, tied=False, **ONE_LAYER)
    model = vlm_jax.load(folder)
    encode = model.processor.tokenizer.encode
    tokens = encode(text, add_special_tokens=False)
    assert len(set(tokens)) == len(tokens)
    chain = [*encode("\n", add_special_tokens=False), *tokens, tokens[0] if endless else model.stop_tokens[0]]
    parameters = {path: np.array(array) for path, array in model.parameters.items()}
    for path in ("attention/o_proj/kernel", "mlp/down_proj/kernel"):
        parameters[f"decoder/layers/layer/{path}"][:] = 0
    parameters["decoder/norm/scale"][:] = 1
    embeddings, head = parameters["embedding"], parameters["head"]
    head[:] = 0
    for token, following in zip(chain, chain[1:], strict=False):
        head[:, following] += embeddings[token] / np.linalg.norm(embeddings[token])
    model.parameters = parameters
    return model
