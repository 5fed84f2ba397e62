"""Drawn scenes with colours, shapes, counts, positions and words: what the tiny base model learns to see with.

scripts/generate_corpus.py --config=configs/corpus/scenes.py --output=runs/scenes
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            "corpus": "scenes",
            "train": 40_000,  # pictures, each with a conversation about all that is to be seen
            "held_out": 400,  # single questions: colour, shape, count and position in equal parts
            "seed": 0,
        }
    )
