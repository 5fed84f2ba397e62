"""A console whose lines are kept, to be looked at."""

from vlm_jax.training.log import Console


class Lines(Console):
    def __init__(self):
        super().__init__(silent=True)
        self.lines = []

    def say(self, line):
        self.lines.append(line)
