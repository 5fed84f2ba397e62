"""vlm-jax: teach small vision-language models new knowledge, in JAX.

    model = vlm_jax.load("runs/photos")
    model.generate([{"role": "user", "content": "What does VQA stand for?"}])
    vlm_jax.export("runs/photos", "my-model")

Importing this package is quick: JAX and the rest load when they are used.
"""

import importlib

from vlm_jax.errors import InputError

__version__ = "0.1.0"

_LAZY = {
    "keep_tokens": "vlm_jax.models.token_reduction",
    "load": "vlm_jax.inference.loading",
    "load_encoder": "vlm_jax.retrieval.encoder",
    "export": "vlm_jax.checkpoint.export",
    "score": "vlm_jax.evaluation.metrics",
}

__all__ = ["InputError", "export", "keep_tokens", "load", "load_encoder", "score"]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vlm_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
