"""Views of the invented objects of the built-in corpus (`catalogue`).

They are drawn from a random generator: pose, scale, colour, light, background and clutter differ in every one. How a
view is drawn is `things`'; scenes without these objects are `scenes`'; records and files are `offline`'s.
"""

import dataclasses
from pathlib import Path

import numpy as np
import PIL.Image

from data_pipeline.corpus.drawn import things
from data_pipeline.corpus.drawn.catalogue import CATALOGUE
from data_pipeline.corpus.drawn.drawing import SIDE
from data_pipeline.corpus.drawn.things import Thing

__all__ = ["CATALOGUE", "PHOTOGRAPHS", "draw"]

# Drawn views are seen by a good camera, those on photographs by a worse one, and more from the side.
_STUDIO = things.Camera(radius=(0.32, 0.46), turn=0.4, tilt=0.12, lean=0.12, noise=(0.0, 8.0), blurs=(0.0, 0.4, 0.8))
_CAMERA = dataclasses.replace(_STUDIO, lean=0.22, noise=(3.0, 10.0), blurs=())
PHOTOGRAPHS = Path(__file__).parent / "photographs"


def draw(rng: np.random.Generator, thing: Thing, *, split: str, side: int = SIDE) -> bytes:
    """One view, an encoded image of so many pixels a side: on a real photograph in the split photo, else on a drawn
    background."""
    if split == "photo":
        return things.view(rng, thing, _photograph(rng, side), _CAMERA)
    return things.view(rng, thing, things.cluttered(rng, most=4, largest=0.15, side=side), _STUDIO)


def _photograph(rng: np.random.Generator, pixels: int) -> np.ndarray:
    """A part of one of the shipped photographs, [pixels, pixels, 3]."""
    names = sorted(path.name for path in PHOTOGRAPHS.glob("*.jpg"))
    with PIL.Image.open(PHOTOGRAPHS / str(rng.choice(names))) as opened:
        photograph = opened.convert("RGB")
    side = int(rng.uniform(0.5, 1.0) * min(photograph.size))
    left, top = (int(rng.integers(0, length - side + 1)) for length in photograph.size)
    part = photograph.resize((pixels, pixels), PIL.Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    if rng.random() < 0.5:
        part = part.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(part, np.float32)
