"""vlm_jax's side of `generate.py`."""

import time

import jax
import jax.numpy as jnp

from generate import Settings, prompts
from vlm_jax.inference.loading import load


class Side:
    def __init__(self, settings: Settings):
        self.settings, self.prompts = settings, prompts(settings)
        self.model = load(settings.folder, dtype=settings.dtype, visual_tokens=(4, settings.visual_tokens))
        # Answers of full length, whatever they say.
        self.model = type(self.model)(
            self.model.config, self.model.parameters, self.model.processor, (), dtype=jnp.dtype(settings.dtype)
        )

    def answers(self, count: int, tokens: int) -> list[list[int]]:
        self.model.forget()
        return [found.tolist() for found in self.model.generate_tokens(self.prompts[:count], max_new_tokens=tokens)]

    def seconds(self, count: int, tokens: int) -> float:
        begun = time.perf_counter()
        self.answers(count, tokens)
        return time.perf_counter() - begun

    def library(self) -> str:
        return f"vlm_jax on jax {jax.__version__}, {self.settings.dtype}, {jax.devices()[0].device_kind}"
