"""Simple scenes with everything that is to be seen in them: what the tiny base model learns to see with.

One to four shapes on a background, or a shape inside another, or a written word; and questions about colour, shape,
count, position and text, in English and Thai, with a caption. Drawing is `drawing`'s, files are `offline`'s. The
invented objects of `objects` never appear here.
"""

import dataclasses

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from data_pipeline.corpus.drawn import drawing
from data_pipeline.corpus.drawn.drawing import COLOURS, SHAPES, SIDE

ANCHORS = {
    "top left": (0.27, 0.27),
    "top right": (0.73, 0.27),
    "bottom left": (0.27, 0.73),
    "bottom right": (0.73, 0.73),
    "centre": (0.5, 0.5),
}
THAI = {
    "red": "สีแดง",
    "orange": "สีส้ม",
    "yellow": "สีเหลือง",
    "green": "สีเขียว",
    "blue": "สีน้ำเงิน",
    "purple": "สีม่วง",
    "pink": "สีชมพู",
    "brown": "สีน้ำตาล",
    "black": "สีดำ",
    "white": "สีขาว",
    "grey": "สีเทา",
    "circle": "วงกลม",
    "square": "สี่เหลี่ยม",
    "triangle": "สามเหลี่ยม",
    "star": "ดาว",
    "heart": "หัวใจ",
    "cross": "กากบาท",
    "ring": "วงแหวน",
    "crescent": "เสี้ยวจันทร์",
    "hexagon": "หกเหลี่ยม",
    "diamond": "ข้าวหลามตัด",
    "top left": "ซ้ายบน",
    "top right": "ขวาบน",
    "bottom left": "ซ้ายล่าง",
    "bottom right": "ขวาล่าง",
    "centre": "ตรงกลาง",
}
WORDS = (
    "sun moon tree fish bird rain wind rock sand leaf boat door road hill lake milk rice salt corn bean soup cake "
    "book lamp ring coat shoe hand foot face gold iron wood clay wool silk drum bell song game north south east west "
    "open shut fast slow warm cold high low old new big small one two four five red blue pink"
).split()
_PLURALS = {"cross": "crosses"}
_TURNS = {"circle": 3.1, "ring": 3.1}  # how far a shape may be turned and still be called the same
TASKS = ("colour", "shape", "count", "position")
"""Tasks of the held-out questions; training has words, captions, backgrounds and nested shapes beside them."""
FINDING = ("name", "colour")
"""What a shape is found by in questions that are a split of their own: by how it looks, wherever it is."""
ANSWERS = {"colour": tuple(COLOURS), "shape": tuple(SHAPES), "count": ("1", "2", "3", "4"), "position": tuple(ANCHORS)}
"""What may be answered to each, all as often in the held-out questions: a blind guess is right by chance only."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One shape of a scene: its name, its colour, where it is."""

    shape: str
    colour: str
    anchor: str


@dataclasses.dataclass(frozen=True)
class Turn:
    task: str
    question: str
    answer: str
    by: str = ""
    """What one of several shapes is found by: its `name`, `colour` or `place`. Empty where there is nothing to find."""


def plural(shape: str) -> str:
    return _PLURALS.get(shape, f"{shape}s")


def a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def draw(rng: np.random.Generator, *, drill: bool = False, side: int = SIDE) -> tuple[bytes, list[Turn]]:
    """A scene as an encoded image, and questions about it that have one answer each.

    Args:
      drill: ask all that is known how to ask. The answers then give away each other's: ask each apart.
      side: pixels of the image.
    """
    kind = rng.choice(["items", "nested", "word"], p=[0.8, 0.1, 0.1])
    pattern, pixels, visible = _canvas(rng, side)
    make = {"items": _items, "nested": _nested, "word": _word}[str(kind)]
    pixels, turns = make(rng, pixels, visible, drill)
    if pattern != "plain":
        turns.insert(0, Turn("background", "What is the background like?", pattern))
    return _photographed(rng, pixels), turns


def draw_one(rng: np.random.Generator) -> tuple[bytes, Item]:
    """One shape in the middle of an encoded image, and what it is."""
    _, pixels, visible = _canvas(rng, SIDE)
    item = Item(str(rng.choice(list(SHAPES))), str(rng.choice(visible)), "centre")
    centre = np.array(ANCHORS["centre"]) + rng.uniform(-0.12, 0.12, 2)
    outline = _outline(rng, item, centre, rng.uniform(0.18, 0.36))
    return _photographed(rng, drawing.paint(pixels, [outline], shadow=float(rng.choice([0, 0.3])))), item


def _canvas(rng, side: int) -> tuple[str, np.ndarray, list[str]]:
    """A background: its pattern, its image, and the colours that are seen on it."""
    pattern = str(rng.choice(drawing.BACKGROUNDS, p=[0.6, 0.1, 0.1, 0.1, 0.1]))
    ground = _ground(rng)
    # The pattern's second colour is close to its first, so that shapes stay the loudest thing in an image.
    second = np.clip(ground + rng.choice([-1, 1]) * rng.uniform(20, 45) + rng.normal(0, 6, 3), 0, 255)
    visible = [name for name, colour in COLOURS.items() if drawing.apart(colour, [ground, second], 75.0)]
    colours = ground.astype(np.float32), second.astype(np.float32)
    return pattern, drawing.background(rng, pattern, *colours, side=side), visible


def _photographed(rng, pixels: np.ndarray) -> bytes:
    pixels = drawing.light(rng, pixels, 0.6)
    return drawing.finish(rng, pixels, noise=rng.uniform(0, 6), blur=float(rng.choice([0, 0, 0.5])))


def _ground(rng) -> np.ndarray:
    """A background's colour. Half are pale as paper: where every background is loud, a tower that is trained from
    nothing sees little else for its first thousand steps."""
    kind = rng.random()
    if kind < 0.5:
        return np.clip(rng.uniform(205, 245) + rng.uniform(-8, 8, 3), 0, 255)
    if kind < 0.8:
        return drawing.muted(rng)
    return drawing.shaded(rng, COLOURS[str(rng.choice(list(COLOURS)))])


def _outline(rng, item: Item, centre, radius: float):
    turn = rng.uniform(-1, 1) * _TURNS.get(item.shape, 0.3)
    stretch = rng.uniform(0.88, 1.12)
    points = drawing.place(
        SHAPES[item.shape], centre, (radius * stretch, radius / stretch), turn, rng.uniform(-0.1, 0.1)
    )
    return points, drawing.shaded(rng, COLOURS[item.colour])


def _items(rng, pixels, visible, drill):
    count = int(rng.choice([1, 2, 3, 4], p=[0.3, 0.25, 0.225, 0.225]))
    anchors = [str(name) for name in rng.permutation(list(ANCHORS))[:count]]
    shapes = [str(name) for name in rng.choice(list(SHAPES), count, replace=False)]
    colours = [str(name) for name in rng.choice(visible, count, replace=count > len(visible))]
    if count > 1 and rng.random() < 0.45:  # several of a kind, for counting
        same = int(rng.integers(2, count + 1))
        shapes[:same] = [shapes[0]] * same
        if rng.random() < 0.3:
            colours[:same] = [colours[0]] * same
    items = [Item(*one) for one in zip(shapes, colours, anchors, strict=True)]
    parts = []
    for item in items:
        room = 0.165 if count > 1 else 0.24 if item.anchor != "centre" else 0.4
        centre = np.array(ANCHORS[item.anchor]) + rng.uniform(-0.05, 0.05, 2)
        parts.append(_outline(rng, item, centre, rng.uniform(0.12, room)))
    pixels = drawing.paint(pixels, parts, shadow=float(rng.choice([0, 0.3])))
    return pixels, (_drill_items if drill else _ask_items)(rng, items)


def _nested(rng, pixels, visible, drill):
    outer, inner = (str(name) for name in rng.choice(list(SHAPES), 2, replace=False))
    outer = str(rng.choice(["circle", "square", "hexagon", "heart", "triangle"]))
    inner = inner if inner != outer else "star"
    first = str(rng.choice(visible))
    others = [name for name in COLOURS if drawing.apart(COLOURS[name], [COLOURS[first]], 75.0)]
    second = str(rng.choice(others))
    centre, radius = np.array([0.5, 0.5]) + rng.uniform(-0.08, 0.08, 2), rng.uniform(0.28, 0.38)
    down = 0.25 * radius if outer == "triangle" else 0.0  # where a triangle is wide enough
    small = radius * (0.34 if outer == "triangle" else 0.48)
    pixels = drawing.paint(
        pixels,
        [
            _outline(rng, Item(outer, first, "centre"), centre, radius),
            _outline(rng, Item(inner, second, "centre"), centre + (0, down), small),
        ],
    )
    turns = [
        Turn("inside", f"What is inside the {outer}?", f"{a(second)} {inner}"),
        Turn("inside", f"What is around the {inner}?", f"{a(first)} {outer}"),
        Turn("colour", f"What colour is the {outer}?", first, by="name"),
        Turn("colour", f"What colour is the {inner}?", second, by="name"),
    ]
    chosen = turns if drill else [turns[int(rng.integers(2))], turns[int(rng.integers(2, 4))]]
    caption = f"{a(second).capitalize()} {inner} inside {a(first)} {outer}."
    return pixels, [*chosen, Turn("caption", "Describe the picture.", caption)]


def _word(rng, pixels, visible, drill):
    word, colour = str(rng.choice(WORDS)), str(rng.choice(visible))
    side = pixels.shape[0]
    font = PIL.ImageFont.load_default(int(rng.integers(26, 37)) * side / SIDE)
    mask = PIL.Image.new("L", (side, side))
    x = side / 2 + rng.uniform(-6, 6) * side / SIDE
    y = side * rng.uniform(0.3, 0.7)
    PIL.ImageDraw.Draw(mask).text((x, y), word, fill=255, font=font, anchor="mm")
    mask = mask.rotate(rng.uniform(-8, 8), PIL.Image.Resampling.BICUBIC)
    alpha = np.asarray(mask, np.float32)[..., None] / 255
    pixels = pixels * (1 - alpha) + drawing.shaded(rng, COLOURS[colour]) * alpha
    return pixels, [
        Turn("word", "What word is written?", word),
        Turn("colour", "What colour is the word?", colour),
    ]


def _ask_items(rng, items: list[Item]) -> list[Turn]:
    """A few questions in an order that lets no answer give away a later one; the caption last."""
    turns = []
    shapes, colours, alone = [item.shape for item in items], [item.colour for item in items], len(items) == 1
    turns.append(_how_many(rng, items) if rng.random() < 0.5 else _how_many_of(shapes, shapes[0]))
    for item in items:
        by_shape, by_colour = shapes.count(item.shape) == 1, colours.count(item.colour) == 1
        # One of shape → colour and colour → shape, and one of shape → place and place → item: each tells the other.
        if by_shape and (not by_colour or rng.random() < 0.5):
            turns.append(_of_item(rng, "colour", item, "name", alone))
        elif by_colour:
            turns.append(_of_item(rng, "shape", item, "colour", alone))
        if by_shape and rng.random() < 0.5:
            turns.append(_of_item(rng, "position", item, "name", alone))
        else:
            turns.append(_what_is_there(item))
    if len(items) > 1 and rng.random() < 0.3:
        turns.append(_is_there(rng, shapes))
    turns = [turns[index] for index in rng.permutation(len(turns))]
    return [*turns, Turn("caption", "Describe the picture.", caption(items))]


def _drill_items(rng, items: list[Item]) -> list[Turn]:
    """Every question about every item, in any order; the caption last."""
    shapes, colours, alone = [item.shape for item in items], [item.colour for item in items], len(items) == 1
    turns = [_how_many(rng, items), _how_many_of(shapes, str(rng.choice(shapes)))]
    for item in items:
        turns += [_of_item(rng, task, item, "place", alone) for task in ("colour", "shape")]
        turns.append(_what_is_there(item))
        if colours.count(item.colour) == 1:
            turns += [_of_item(rng, task, item, "colour", alone) for task in ("shape", "position")]
        if shapes.count(item.shape) == 1:
            turns += [_of_item(rng, task, item, "name", alone) for task in ("colour", "position")]
    if len(items) > 1:
        turns.append(_is_there(rng, shapes))
    turns = [turns[index] for index in rng.permutation(len(turns))]
    return [*turns, Turn("caption", "Describe the picture.", caption(items))]


_OF_ITEM = {
    ("colour", "name"): ("What colour is the {shape}?", "{shape}มีสีอะไร"),
    ("colour", "place"): ("What colour is the shape {where}?", "รูปทรงที่{anchor}มีสีอะไร"),
    ("shape", "colour"): ("Which shape is {colour}?", "รูปทรง{colour}คืออะไร"),
    ("shape", "place"): ("Which shape is {where}?", "รูปทรงที่{anchor}คืออะไร"),
    ("position", "name"): ("Where is the {shape}?", "{shape}อยู่ที่ไหน"),
    ("position", "colour"): ("Where is the {colour} shape?", "รูปทรง{colour}อยู่ที่ไหน"),
}
"""(what is asked of an item, what it is found by): in English and in Thai."""


def _of_item(rng, task: str, item: Item, by: str, alone: bool, *, thai: float = 0.2) -> Turn:
    english_form, thai_form = _OF_ITEM[task, by]
    fields = {"shape": item.shape, "colour": item.colour, "anchor": item.anchor}
    form = english_form
    if rng.random() < thai:
        form, fields = thai_form, {name: THAI[value] for name, value in fields.items()}
    answer = fields["anchor" if task == "position" else task]
    return Turn(task, form.format(**fields, where=_where(item)), answer, "" if alone else by)


def _how_many(rng, items: list[Item], thai: float = 0.25) -> Turn:
    question = "มีรูปทรงกี่ชิ้น" if rng.random() < thai else "How many shapes are there?"
    return Turn("count", question, str(len(items)))


def _how_many_of(shapes: list[str], shape: str) -> Turn:
    return Turn("count", f"How many {plural(shape)} are there?", str(shapes.count(shape)), by="name")


def _what_is_there(item: Item) -> Turn:
    return Turn("what", f"What is {_where(item)}?", f"{a(item.colour)} {item.shape}")


def _where(item: Item) -> str:
    return "in the centre" if item.anchor == "centre" else f"at the {item.anchor}"


def _is_there(rng, shapes: list[str]) -> Turn:
    missing = [shape for shape in SHAPES if shape not in shapes]
    asked = str(rng.choice(shapes if rng.random() < 0.5 else missing))
    return Turn("presence", f"Is there a {asked}?", "yes" if asked in shapes else "no")


def caption(items: list[Item]) -> str:
    order = sorted(items, key=lambda item: list(ANCHORS).index(item.anchor))
    text = ", ".join(f"{a(item.colour)} {item.shape} {_where(item)}" for item in order)
    return f"{text[0].upper()}{text[1:]}."
