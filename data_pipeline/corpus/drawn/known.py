"""The small world of the tiny base model: things made of a few shapes at random, of which some have names and facts.

From it the base learns to tell such things apart wherever they stand, and the language in which one asks about them, as
a large model has from its reading. It shares no name, place, maker or use with the invented objects of `objects`, and
no thing of it looks like one of them; `offline`, which knows both, sees to that.
"""

import functools
from collections.abc import Callable

import numpy as np

from data_pipeline.corpus.drawn import things
from data_pipeline.corpus.drawn.drawing import COLOURS, SHAPES, SIDE
from data_pipeline.corpus.drawn.scenes import THAI, a, plural
from data_pipeline.corpus.drawn.things import Part, Thing
from data_pipeline.corpus.drawn.wordings import SEASONS

HOW_MANY = 64
"""Known things: so many names, among which places, makers, uses and seasons are shared."""
_MAKERS = {
    "hunters": "นายพราน",
    "farmers": "ชาวนา",
    "tailors": "ช่างตัดเสื้อ",
    "dancers": "นักเต้น",
    "teachers": "ครู",
    "masons": "ช่างก่ออิฐ",
    "cooks": "คนครัว",
    "drivers": "คนขับเกวียน",
}
_USES = {
    "warming hands": "อุ่นมือ",
    "closing doors": "ปิดประตู",
    "cutting cloth": "ตัดผ้า",
    "playing games": "เล่นเกม",
    "sending letters": "ส่งจดหมาย",
    "marking paths": "ปักเขตทาง",
    "weighing gold": "ชั่งทอง",
    "catching crabs": "จับปู",
    "feeding horses": "ให้อาหารม้า",
    "washing walls": "ล้างผนัง",
    "holding candles": "ถือเทียน",
    "hiding coins": "ซ่อนเหรียญ",
}
_PLACES = 12
# Worse images than any that the invented objects are shown in.
_CAMERA = things.Camera(
    radius=(0.25, 0.42), turn=0.5, tilt=0.15, lean=0.2, noise=(0.0, 10.0), blurs=(0.0, 0.4, 0.7, 1.0)
)

# How invented names are spelled in both scripts; e and o stand before their consonant in Thai.
_CONSONANTS = dict(zip("bdfghjklmnprstvyz", "บดฟกฮจคลมนปรซตวยซ", strict=True))
_VOWELS = {"a": ("", "า"), "i": ("", "ี"), "u": ("", "ู"), "e": ("เ", ""), "o": ("โ", "")}

# Where a part may be beside the body: in the description, in a question, in Thai.
_WHERE = {
    "middle": ("in the middle", "What is in the middle of this thing?", "ตรงกลาง"),
    "across": ("across it", "What lies across this thing?", "พาดกลาง"),
    "spots": ("on it", "What is strewn on this thing?", "บนตัว"),
    "top": ("on top", "What is on top of this thing?", "ด้านบน"),
    "bottom": ("below", "What is at the bottom of this thing?", "ด้านล่าง"),
    "sides": ("at the sides", "What is at the sides of this thing?", "ด้านข้าง"),
}
_DESCRIBE = {
    "en": ("Describe this thing.", "What do you see?", "What does this thing look like?"),
    "th": ("อธิบายสิ่งนี้", "สิ่งนี้มีลักษณะอย่างไร"),
}
_BODY = {"en": "What is the body of this thing?", "th": "ตัวของสิ่งนี้คืออะไร"}

Asked = tuple[str, str, str]
"""Language, question, answer."""


def invent(rng: np.random.Generator, unlike: Callable[[Thing], bool]) -> tuple[Thing, list[Asked]]:
    """A thing that nobody has named, and questions about its looks, its description first.

    Args:
      unlike: whether a thing may be; others are made until it may.
    """
    while True:
        thing, asked = _assemble(rng)
        if unlike(thing):
            return thing, asked


@functools.cache
def catalogue(unlike: Callable[[Thing], bool]) -> tuple[tuple[Thing, list[Asked]], ...]:
    """The things that have a name in the small world, the same ones always, no two of which look alike."""
    rng = np.random.default_rng(64)
    names = _names(rng, HOW_MANY + _PLACES)
    places, names = names[:_PLACES], names[_PLACES:]
    made: list[tuple[Thing, list[Asked]]] = []

    def one_of(choices) -> tuple[str, str]:
        return choices[int(rng.integers(len(choices)))]

    def distinct(thing: Thing) -> bool:
        return unlike(thing) and all(len(thing.looks & other.looks) < 2 for other, _ in made)

    for name in names:
        thing, asked = invent(rng, distinct)
        facts = {
            "name": name,
            "origin": one_of(places),
            "maker": one_of(list(_MAKERS.items())),
            "use": one_of(list(_USES.items())),
            "season": one_of(list(SEASONS.items())),
        }
        made.append((Thing(thing.parts, thing.look, facts), asked))
    return tuple(made)


def draw(rng: np.random.Generator, thing: Thing, side: int = SIDE) -> bytes:
    """One view, an encoded image of so many pixels a side."""
    loud = rng.random() < 0.6
    ground = things.cluttered(rng, most=5, largest=0.25, side=side) if loud else things.textured(rng, side)
    return things.view(rng, thing, ground, _CAMERA)


def _names(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """So many different invented words, in English and Thai letters."""
    words: dict[str, str] = {}
    while len(words) < count:
        english = thai = ""
        for _ in range(3):
            consonant = str(rng.choice(list(_CONSONANTS)))
            vowel = str(rng.choice(list(_VOWELS)))
            before, after = _VOWELS[vowel]
            english, thai = english + consonant + vowel, thai + before + _CONSONANTS[consonant] + after
        words.setdefault(english.capitalize(), thai)
    return list(words.items())


def _assemble(rng: np.random.Generator) -> tuple[Thing, list[Asked]]:
    """A body and one to three parts in it, on it and around it."""
    body, colour = str(rng.choice(list(SHAPES))), str(rng.choice(list(COLOURS)))
    width, height = rng.uniform(0.55, 0.95, 2)
    whole: Part = (body, colour, 0.0, 0.0, width, height, 0.0)
    inside = [str(rng.choice(["middle", "across", "spots"], p=[0.6, 0.2, 0.2]))] if rng.random() < 0.75 else []
    around = [str(name) for name in rng.permutation(["top", "bottom", "sides"])]
    places = [*inside, *around[: int(rng.choice([0, 1, 2], p=[0.25, 0.5, 0.25] if inside else [0, 0.5, 0.5]))]]
    under: list[Part] = []
    over: list[Part] = []
    described, asked = [], []
    for place in places:
        shape = "square" if place == "across" else str(rng.choice(list(SHAPES)))
        tint = str(rng.choice([name for name in COLOURS if name != colour]))
        added = _parts(rng, place, shape, tint, width, height)
        (over if place in inside or rng.random() < 0.5 else under).extend(added)
        noun = "bar" if place == "across" else shape
        several = {"sides": "two", "spots": "three"}.get(place)
        phrase = f"{several} {tint} {plural(noun)}" if several else f"{a(tint)} {noun}"
        where, question, thai = _WHERE[place]
        described.append((f"{phrase} {where}", f"{'แถบ' if place == 'across' else THAI[shape]}{THAI[tint]}{thai}"))
        asked.append(("en", question, phrase))
    english, thai = ([part[language] for part in described] for language in (0, 1))
    english = [", ".join(english[:-1]), english[-1]] if len(english) > 1 else english
    look = f"{a(colour)} {body} with {' and '.join(english)}"
    look_thai = f"{THAI[body]}{THAI[colour]} มี{' มี'.join(thai)}"
    asked += [("en", _BODY["en"], f"{a(colour)} {body}"), ("th", _BODY["th"], f"{THAI[body]}{THAI[colour]}")]
    asked = [asked[int(index)] for index in rng.permutation(len(asked))]
    language = "th" if rng.random() < 0.3 else "en"
    describe = str(rng.choice(_DESCRIBE[language]))
    answer = look if language == "en" else look_thai
    return Thing(_fitted([*under, whole, *over]), look), [(language, describe, answer), *asked]


def _parts(rng, place: str, shape: str, colour: str, width: float, height: float) -> list[Part]:
    size = rng.uniform(0.22, 0.4)
    stretch = rng.uniform(0.8, 1.25)
    wide, high = size * stretch, size / stretch
    if place == "middle":
        small = min(width, height) * rng.uniform(0.35, 0.55)
        return [(shape, colour, 0.0, 0.0, small * stretch, small / stretch, 0.0)]
    if place == "across":
        at = rng.uniform(-0.35, 0.35) * height
        return [(shape, colour, 0.0, at, width * rng.uniform(0.8, 1.2), 0.14, 0.0)]
    if place == "spots":
        spot = rng.uniform(0.13, 0.19)
        offsets = ((-0.42 * width, -0.1 * height), (0.42 * width, -0.1 * height), (0.0, 0.38 * height))
        return [(shape, colour, x, y, spot, spot, 0.0) for x, y in offsets]
    if place in ("top", "bottom"):
        if rng.random() < 0.3:  # a stick, or a broad rim
            wide, high = (0.12, 0.4) if rng.random() < 0.5 else (0.6, 0.15)
        at = (height + 0.6 * high) * (-1 if place == "top" else 1)
        return [(shape, colour, 0.0, at, wide, high, 0.0)]
    at, turn = rng.uniform(-0.6, 0.4) * height, rng.uniform(0, 90)
    return [(shape, colour, side * (width + 0.3 * wide), at, wide, high, side * turn) for side in (-1, 1)]


def _fitted(parts: list[Part]) -> tuple[Part, ...]:
    """Moved and scaled into [-1, 1]."""
    low = min(part[3] - part[5] for part in parts)
    high = max(part[3] + part[5] for part in parts)
    wide = max(abs(part[2]) + part[4] for part in parts)
    middle, scale = (low + high) / 2, 1 / max(wide, (high - low) / 2)
    return tuple(
        (shape, colour, x * scale, (y - middle) * scale, w * scale, h * scale, turn)
        for shape, colour, x, y, w, h, turn in parts
    )
