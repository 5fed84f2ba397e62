"""A thing made of several coloured shapes, and one view of it: pose, clutter, background, light and camera.

The invented objects (`objects`) and what the tiny base model has seen before them (`known`) are drawn alike, so that
a base that tells the ones apart can learn to tell the others. Shapes and cameras are `drawing`'s.
"""

import dataclasses

import numpy as np

from data_pipeline.corpus.drawn import drawing
from data_pipeline.corpus.drawn.drawing import COLOURS, SHAPES, SIDE

# One part: shape, colour, centre x, y, half width, half height, turn in degrees. Later parts lie on earlier ones.
Part = tuple[str, str, float, float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Thing:
    """A thing in images.

    Attributes:
      parts: its drawing, within [-1, 1].
      look: what is to be seen, in English; the first step of a reasoned answer.
      facts: what is to be known about it: {one of wordings.FACTS: (English, Thai)}.
    """

    parts: tuple[Part, ...]
    look: str
    facts: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.facts["name"][0].lower()

    @property
    def looks(self) -> frozenset[tuple[str, str]]:
        """(shape, colour) of its parts: two things with two in common look alike."""
        return frozenset(part[:2] for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Camera:
    """How differently a thing may be seen.

    Attributes:
      radius: least and most of its half size, as shares of the image.
      turn, tilt: most rotation in radians, most shear.
      lean: strongest perspective.
      noise: least and most.
      blurs: one of which is drawn, in pixels; none for anything between 0.3 and 1.
    """

    radius: tuple[float, float]
    turn: float
    tilt: float
    lean: float
    noise: tuple[float, float]
    blurs: tuple[float, ...] = ()


def view(rng: np.random.Generator, thing: Thing, pixels: np.ndarray, camera: Camera) -> bytes:
    """A thing in a pose of its own on a background [side, side, 3]: an encoded image."""
    turn, tilt = rng.uniform(-camera.turn, camera.turn), rng.uniform(-camera.tilt, camera.tilt)
    radius = rng.uniform(*camera.radius)
    size = radius * np.array([rng.uniform(0.88, 1.12), rng.uniform(0.88, 1.12)])
    room = max(0.0, 0.47 - radius)
    centre = 0.5 + rng.uniform(-room, room, 2)
    leaning = rng.uniform(-1, 1, 2) * camera.lean
    parts = []
    for shape, colour, x, y, width, height, degrees in thing.parts:
        points = drawing.place(SHAPES[shape], (x, y), (width, height), np.deg2rad(degrees))
        points = drawing.place(drawing.perspective(points, leaning), centre, size, turn, tilt)
        parts.append((points, drawing.shaded(rng, COLOURS[colour])))
    pixels = drawing.paint(pixels, parts, shadow=rng.uniform(0.2, 0.5))
    pixels = drawing.light(rng, pixels, 1.0)
    blur = float(rng.choice(camera.blurs)) if camera.blurs else rng.uniform(0.3, 1.0)
    return drawing.finish(rng, pixels, noise=rng.uniform(*camera.noise), blur=blur)


def cluttered(rng: np.random.Generator, most: int, largest: float, side: int = SIDE) -> np.ndarray:
    """A loud background [side, side, 3]: a pattern of two colours, on it at most so many shapes of half that size."""
    colours = [
        drawing.muted(rng) if rng.random() < 0.6 else np.array(COLOURS[str(rng.choice(list(COLOURS)))], np.float32)
        for _ in range(2)
    ]
    pixels = drawing.background(rng, str(rng.choice(drawing.BACKGROUNDS)), *colours, side=side)
    return drawing.paint(pixels, _clutter(rng, most, largest))


def textured(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """A background [side, side, 3] of features of all sizes in colours of little saturation, as photographs have."""
    pixels = np.broadcast_to(drawing.muted(rng), (side, side, 3)).astype(np.float32)
    contrast = rng.uniform(15, 70)
    for octave in range(5):
        strength = contrast * rng.uniform(0.3, 1) / (1 + 0.5 * octave)
        noise = drawing.smooth_noise(rng, side, 2 ** (octave + 1), 3)
        grey = noise.mean(axis=2, keepdims=True)
        pixels = pixels + strength * (grey + rng.uniform(0, 0.5) * (noise - grey))
    patches = []
    for _ in range(int(rng.integers(0, 8))):
        shape = SHAPES[str(rng.choice(["square", "circle", "triangle", "hexagon"]))]
        points = drawing.place(shape, rng.uniform(0, 1, 2), rng.uniform(0.03, 0.4, 2), rng.uniform(0, 6.3))
        patches.append((points, drawing.muted(rng)))
    return drawing.paint(pixels, patches, shadow=rng.uniform(0, 0.4))


def _clutter(rng: np.random.Generator, most: int, largest: float) -> list:
    parts = []
    for _ in range(int(rng.integers(0, most + 1))):
        shape, colour = SHAPES[str(rng.choice(list(SHAPES)))], COLOURS[str(rng.choice(list(COLOURS)))]
        size = rng.uniform(0.2 * largest, largest, 2)
        points = drawing.place(shape, rng.uniform(0, 1, 2), size, rng.uniform(0, 6.3))
        parts.append((points, drawing.shaded(rng, colour, 60.0)))
    return parts
