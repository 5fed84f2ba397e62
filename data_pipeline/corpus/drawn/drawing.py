"""Procedural images: flat shapes in perspective, backgrounds, light and camera, all from a random generator.

Scenes for the tiny base model and views of the invented objects are drawn with it. Colours are RGB in [0, 255];
positions in an image run from (0, 0) top left to (1, 1) bottom right. Images are float32 [side, side, 3] until
`finish` makes them images. What is drawn, and what is asked about it, is `scenes`' and `objects`'.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter

SIDE = 112
"""Pixels where nothing else is said: 8 × 8 patches, one window of the vision tower, 16 visual tokens."""
_OVERSAMPLING = 3

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 38),
    "orange": (245, 140, 24),
    "yellow": (245, 220, 50),
    "green": (46, 150, 62),
    "blue": (40, 84, 200),
    "purple": (132, 50, 160),
    "pink": (246, 150, 190),
    "brown": (118, 70, 36),
    "black": (24, 24, 26),
    "white": (246, 246, 242),
    "grey": (138, 140, 144),
}

Points = np.ndarray
"""float [n, 2], x to the right and y down; unit shapes lie within [-1, 1]."""
Pair = tuple[float, float] | np.ndarray
"""A position, or a width and a height."""
Colour = tuple[int, int, int] | np.ndarray


def _regular(corners: int, turn: float = 0.0) -> Points:
    angles = 2 * np.pi * np.arange(corners) / corners - np.pi / 2 + turn
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> Points:
    points = _regular(10)
    points[1::2] *= 0.42
    return points


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 17, -(y + 2.5) / 15], axis=1)


def _crescent() -> Points:
    outer = np.linspace(np.pi / 4, 7 * np.pi / 4, 32)
    inner = outer[::-1]
    return np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], axis=1),
            np.stack([0.45 + 0.72 * np.cos(inner) * 0.95, 0.99 * np.sin(inner) * 0.72], axis=1),
        ]
    )


def _ring() -> Points:
    outer = _regular(40)
    # One outline: around, across a seam of no width, and back around the hole.
    return np.concatenate([outer, outer[:1], 0.55 * outer[:1], 0.55 * outer[::-1]])


SHAPES: dict[str, Points] = {
    "circle": _regular(40),
    "square": np.array([[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]]),
    "triangle": np.array([[0, -0.95], [0.98, 0.8], [-0.98, 0.8]]),
    "star": _star(),
    "heart": _heart(),
    "cross": np.array(
        [[-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1], [1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1]]
    )
    / 3.2,
    "ring": _ring(),
    "crescent": _crescent(),
    "hexagon": _regular(6, np.pi / 6),
    "diamond": np.array([[0, -1], [0.62, 0], [0, 1], [-0.62, 0]]),
}


def place(points: Points, centre: Pair, size: float | Pair, turn: float = 0.0, tilt: float = 0.0) -> Points:
    """A shape scaled, sheared by `tilt`, turned by `turn` radians and moved to `centre`."""
    points = points * np.asarray(size)
    points = points @ np.array([[1.0, 0.0], [tilt, 1.0]])
    cos, sin = np.cos(turn), np.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]]) + np.asarray(centre)


def perspective(points: Points, lean: Pair) -> Points:
    """Unit points seen at an angle: what lies in the direction of `lean` is nearer, and larger."""
    return points / (1 - points @ np.asarray(lean))[:, None]


def paint(
    pixels: np.ndarray, parts: Sequence[tuple[Points, Colour]], *, shadow: float = 0.0, offset: float = 0.03
) -> np.ndarray:
    """Draws filled outlines (positions in the image, colour) in order, anti-aliased; all cast one soft shadow."""
    side = pixels.shape[0]
    canvas = PIL.Image.new("RGBA", (side * _OVERSAMPLING,) * 2)
    draw = PIL.ImageDraw.Draw(canvas)
    for points, colour in parts:
        outline = [(float(x), float(y)) for x, y in points * side * _OVERSAMPLING]
        draw.polygon(outline, fill=(*(int(np.clip(value, 0, 255)) for value in colour), 255))
    layer = canvas.reduce(_OVERSAMPLING)
    if shadow:
        alpha = layer.getchannel("A").filter(PIL.ImageFilter.GaussianBlur(side * 0.02))
        shade = np.roll(np.asarray(alpha, np.float32), (int(offset * side),) * 2, axis=(0, 1)) / 255
        pixels = pixels * (1 - shadow * shade[..., None])
    drawn = np.asarray(layer, np.float32)
    alpha = drawn[..., 3:] / 255
    return pixels * (1 - alpha) + drawn[..., :3] * alpha


def smooth_noise(rng: np.random.Generator, side: int, cells: int, channels: int = 1) -> np.ndarray:
    """[side, side, channels] in [-1, 1], with features about side / cells wide."""
    coarse = rng.uniform(-1, 1, (channels, cells + 1, cells + 1)).astype(np.float32)
    planes = [PIL.Image.fromarray(plane).resize((side, side), PIL.Image.Resampling.BICUBIC) for plane in coarse]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


BACKGROUNDS = ("plain", "striped", "checked", "cloudy", "dotted")


def background(rng: np.random.Generator, kind: str, first: np.ndarray, second: np.ndarray, side: int = SIDE):
    """[side, side, 3]: a pattern between two colours, a little uneven everywhere."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    if kind == "striped":
        angle, bands = rng.uniform(0, np.pi), rng.uniform(5, 10)
        mix = (np.sin(2 * np.pi * bands * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6)) > 0) * 1.0
    elif kind == "checked":
        cells, angle = rng.uniform(5, 9), rng.uniform(-0.4, 0.4)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        mix = ((np.floor(u * cells) + np.floor(v * cells)) % 2).astype(np.float32)
    elif kind == "cloudy":
        mix = sum(0.5 / (1 + octave) * smooth_noise(rng, side, 2**octave * 3)[..., 0] for octave in range(3)) + 0.5
    elif kind == "dotted":
        cells = rng.uniform(6, 10)
        mix = ((np.mod(x * cells, 1) - 0.5) ** 2 + (np.mod(y * cells, 1) - 0.5) ** 2 < 0.06) * 1.0
    else:
        mix = np.full((side, side), 0.15, np.float32) * smooth_noise(rng, side, 2)[..., 0]
    mix = np.clip(mix, 0, 1)[..., None].astype(np.float32)
    return first * (1 - mix) + second * mix + smooth_noise(rng, side, 4, 1) * rng.uniform(0, 8)


def muted(rng: np.random.Generator) -> np.ndarray:
    """A colour of little saturation: walls, cloth, ground."""
    grey = rng.uniform(60, 225)
    return np.clip(grey + rng.uniform(-30, 30, 3), 0, 255).astype(np.float32)


def apart(colour: Colour, others: Sequence[Colour], least: float) -> bool:
    """Whether a colour differs from others by so much, brightness weighted as the eye does."""
    weights = np.array([0.6, 1.0, 0.4])
    return all(np.sqrt((weights * (np.asarray(colour) - other) ** 2).sum()) >= least for other in map(np.array, others))


def shaded(rng: np.random.Generator, colour: Colour, spread: float = 12.0) -> np.ndarray:
    """A colour as it comes: a little lighter or darker, a little off in hue."""
    return np.clip(np.asarray(colour, np.float32) * rng.uniform(0.9, 1.06) + rng.normal(0, spread / 2, 3), 0, 255)


def light(rng: np.random.Generator, pixels: np.ndarray, strength: float) -> np.ndarray:
    """Uneven light across the image, its brightness and its warmth; `strength` 0 to 1."""
    side = pixels.shape[0]
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    slope = 1 + rng.uniform(0, 0.5) * strength * (x * np.cos(angle) + y * np.sin(angle))
    warmth = 1 + rng.uniform(-0.1, 0.1) * strength * np.array([1, 0, -1], np.float32)
    return pixels * slope[..., None] * warmth * (1 + rng.uniform(-0.22, 0.12) * strength)


def finish(rng: np.random.Generator, pixels: np.ndarray, *, noise: float = 4.0, blur: float = 0.0) -> bytes:
    """What a camera makes of it: blur of so many pixels (of `SIDE`), sensor noise, JPEG. Returns the file."""
    if blur:
        image = PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        blur = blur * pixels.shape[0] / SIDE
        pixels = np.asarray(image.filter(PIL.ImageFilter.GaussianBlur(blur)), np.float32)
    pixels = pixels + rng.normal(0, 1, pixels.shape).astype(np.float32) * noise
    file = BytesIO()
    PIL.Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
