"""transformers' side of `backends.py`, as `--backend=transformers` of an evaluation asks it."""

import time

import torch

from backends import Settings
from data_pipeline.transformers_backend import TransformersModel


class Side:
    def __init__(self, settings: Settings):
        torch.set_num_threads(settings.threads)
        self.settings = settings
        self.model = TransformersModel(settings.model, settings.tokens, batch=settings.batch)

    def answers(self) -> list[list[int]]:
        found = dict(self.model.tokens(self.settings.conversations))
        return [found[number] for number in range(len(found))]

    def seconds(self) -> float:
        begun = time.perf_counter()
        self.answers()
        return time.perf_counter() - begun
