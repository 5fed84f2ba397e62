"""vlm_jax's side of `backends.py`."""

import time

from backends import Settings
from vlm_jax.inference.loading import load


class Side:
    def __init__(self, settings: Settings):
        self.settings, self.model = settings, load(settings.model, dtype="float32")

    def answers(self) -> list[list[int]]:
        found = self.model.answers(self.settings.conversations, self.settings.tokens, at_once=self.settings.batch)
        return [one.tokens.tolist() for one in found]

    def seconds(self) -> float:
        begun = time.perf_counter()
        self.answers()
        return time.perf_counter() - begun
