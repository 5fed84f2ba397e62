"""Drawn scenes with colours, shapes, counts, positions and words: what the tiny base model learns to see with.

.venv/bin/python scripts/generate_corpus.py --config=configs/corpus/scenes.py --output=runs/scenes
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            "corpus": "scenes",  # which of the built-in corpora
            "train": 40_000,  # images, each with a caption and a few questions
            "drill": 12_000,  # images with questions of every kind, one a record
            "things": 20_000,  # images of things made of several shapes, every second one with a name and facts
            "held_out": 400,  # single questions: colour, shape, count and position in equal parts
            "finding": 300,  # single questions that find one of several shapes by its name or colour
            "seed": 0,  # of what is drawn
            "side": 112,  # pixels of an image: 28 for each row of visual tokens, so 224 for 64 of them
        }
    )
