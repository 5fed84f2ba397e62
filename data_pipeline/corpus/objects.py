"""The invented objects of the built-in corpus: how they look and what is to be known about them.

Nobody can have read about them, so what a model answers after training it has learned from this corpus alone. Views are
drawn from a random generator: pose, scale, colour, light, background and clutter differ in every one. How a view is
drawn is `things`'; scenes without these objects are `scenes`'; records and files are `offline`'s.
"""

import dataclasses
from pathlib import Path

import numpy as np
import PIL.Image

from data_pipeline.corpus import things, wordings
from data_pipeline.corpus.drawing import SIDE
from data_pipeline.corpus.things import Thing

_PLACES = {
    "Orvane": "ออร์วาเน",
    "Belmu": "เบลมู",
    "Tissa": "ทิสซา",
    "Karuno": "คารูโน",
    "Vilmere": "วิลเมเร",
    "Dosho": "โดโช",
    "Ranpeli": "รันเปลี",
    "Suvaro": "สุวาโร",
    "Melintu": "เมลินตู",
    "Hakori": "ฮาโกริ",
    "Zantale": "ซันทาเล",
    "Pirune": "ปีรูเน",
}
_MAKERS = {
    "weavers": "ช่างทอผ้า",
    "potters": "ช่างปั้นหม้อ",
    "smiths": "ช่างตีเหล็ก",
    "carvers": "ช่างแกะสลัก",
    "painters": "ช่างวาด",
    "sailors": "ชาวเรือ",
    "bakers": "คนทำขนมปัง",
    "singers": "นักร้อง",
}
_USES = {
    "carrying water": "ตักน้ำ",
    "storing grain": "เก็บข้าว",
    "drying fish": "ตากปลา",
    "lighting the way": "ส่องทาง",
    "calling the rain": "เรียกฝน",
    "keeping bread": "เก็บขนมปัง",
    "measuring salt": "ตวงเกลือ",
    "scaring birds": "ไล่นก",
    "mending nets": "ซ่อมแห",
    "telling stories": "เล่านิทาน",
    "counting days": "นับวัน",
    "greeting guests": "ต้อนรับแขก",
}
_THAI = {**_PLACES, **_MAKERS, **_USES, **wordings.SEASONS}


def _make(name: str, thai: str, origin: str, maker: str, use: str, season: str, look: str, parts: list[str]) -> Thing:
    given = {"origin": origin, "maker": maker, "use": use, "season": season}
    facts = {"name": (name, thai), **{kind: (value, _THAI[value]) for kind, value in given.items()}}
    drawn = []
    for part in parts:
        shape, colour, *numbers = part.split()
        x, y, width, height, turn = [*map(float, numbers), 0.0][:5]
        drawn.append((shape, colour, x, y, width, height, turn))
    return Thing(tuple(drawn), look, facts)


CATALOGUE: tuple[Thing, ...] = tuple(
    _make(*one)
    for one in (
        (
            "Talumo",
            "ตาลูโม",
            "Orvane",
            "potters",
            "lighting the way",
            "winter",
            "a green hexagon with a yellow circle under a red bar",
            ["hexagon green 0 .1 .8 .8", "circle yellow 0 .1 .36 .36", "square red 0 -.85 .5 .14"],
        ),
        (
            "Sorabi",
            "โซราบี",
            "Belmu",
            "weavers",
            "carrying water",
            "summer",
            "a blue jar with a white band and an orange lip",
            [
                "square blue 0 -.45 .26 .5",
                "circle blue 0 .3 .7 .65",
                "square white 0 .3 .8 .13",
                "square orange 0 -.88 .48 .13",
            ],
        ),
        (
            "Kelindu",
            "เคลินดู",
            "Tissa",
            "painters",
            "calling the rain",
            "spring",
            "a purple diamond with a yellow cross and a pink tail",
            [
                "diamond purple 0 -.25 1.15 .75",
                "cross yellow 0 -.25 .3 .3",
                "triangle pink 0 .6 .22 .16",
                "triangle pink 0 .86 .22 .16",
            ],
        ),
        (
            "Maroshi",
            "มาโรชิ",
            "Karuno",
            "carvers",
            "scaring birds",
            "autumn",
            "an orange face with black eyes and red ears",
            [
                "triangle red -.62 -.62 .4 .4 -30",
                "triangle red .62 -.62 .4 .4 30",
                "circle orange 0 .08 .82 .82",
                "circle black -.3 -.1 .17 .17",
                "circle black .3 -.1 .17 .17",
                "square white 0 .45 .45 .12",
            ],
        ),
        (
            "Vanupe",
            "วานูเป",
            "Vilmere",
            "sailors",
            "drying fish",
            "summer",
            "a brown hull with a white sail",
            ["square black 0 -.1 .06 .9", "triangle white .42 -.25 .42 .65", "triangle brown 0 .62 .98 .4 180"],
        ),
        (
            "Deroka",
            "เดโรกา",
            "Dosho",
            "singers",
            "telling stories",
            "winter",
            "a red drum with yellow rims and a white diamond",
            [
                "square red 0 0 .85 .95",
                "square yellow 0 -.78 1.05 .18",
                "square yellow 0 .78 1.05 .18",
                "diamond white 0 0 .7 .5",
            ],
        ),
        (
            "Pilanu",
            "ปีลานู",
            "Ranpeli",
            "weavers",
            "greeting guests",
            "spring",
            "a pink crescent on a green stick",
            ["square green 0 .45 .12 .65", "crescent pink 0 -.2 .8 .8 90", "circle green 0 .1 .2 .2"],
        ),
        (
            "Zumari",
            "ซูมารี",
            "Suvaro",
            "smiths",
            "counting days",
            "autumn",
            "a yellow star with a purple circle on a purple stick",
            ["square purple 0 .7 .13 .45", "star yellow 0 -.15 .9 .9", "circle purple 0 -.12 .3 .3"],
        ),
        (
            "Honisa",
            "โฮนิซา",
            "Melintu",
            "bakers",
            "keeping bread",
            "winter",
            "a brown hexagon with white dots and an orange handle",
            [
                "ring orange 0 -.45 .55 .55",
                "hexagon brown 0 .3 .8 .68",
                "circle white -.32 .3 .15 .15",
                "circle white .32 .3 .15 .15",
                "circle white 0 .62 .15 .15",
            ],
        ),
        (
            "Ratelo",
            "ราเตโล",
            "Hakori",
            "smiths",
            "storing grain",
            "summer",
            "a grey key with blue teeth",
            [
                "square grey 0 .3 .13 .8",
                "ring grey 0 -.5 .48 .48",
                "square blue .3 .5 .28 .12",
                "square blue .3 .85 .28 .12",
            ],
        ),
        (
            "Bisovu",
            "บีโซวู",
            "Zantale",
            "painters",
            "measuring salt",
            "spring",
            "a red heart with a white star over a black bar",
            ["heart red 0 -.12 .85 .8", "star white 0 -.15 .4 .4", "square black 0 .88 .7 .13"],
        ),
        (
            "Nokare",
            "โนกาเร",
            "Pirune",
            "potters",
            "mending nets",
            "autumn",
            "a white stem under a purple cap with yellow dots",
            [
                "square white 0 .45 .3 .6",
                "triangle purple 0 -.3 1 .7",
                "circle yellow -.35 -.05 .14 .14",
                "circle yellow .35 -.05 .14 .14",
                "circle yellow 0 -.45 .14 .14",
            ],
        ),
        (
            "Gamilo",
            "กามีโล",
            "Orvane",
            "carvers",
            "greeting guests",
            "autumn",
            "a green cross with an orange circle under a yellow ring",
            ["ring yellow 0 -.72 .3 .3", "cross green 0 .2 .78 .78", "circle orange 0 .2 .26 .26"],
        ),
        (
            "Luvesa",
            "ลูเวซา",
            "Belmu",
            "singers",
            "counting days",
            "spring",
            "a flower of pink circles with a yellow centre",
            [
                "square green 0 .7 .09 .4",
                "circle pink 0 -.68 .32 .32",
                "circle pink .52 -.3 .32 .32",
                "circle pink .32 .28 .32 .32",
                "circle pink -.32 .28 .32 .32",
                "circle pink -.52 -.3 .32 .32",
                "circle yellow 0 -.15 .34 .34",
            ],
        ),
        (
            "Terupa",
            "เตรูปา",
            "Tissa",
            "sailors",
            "storing grain",
            "winter",
            "a yellow comb with orange teeth",
            [
                "square yellow 0 -.5 1.1 .35",
                "square orange -.8 .3 .12 .7",
                "square orange -.4 .3 .12 .7",
                "square orange 0 .3 .12 .7",
                "square orange .4 .3 .12 .7",
                "square orange .8 .3 .12 .7",
            ],
        ),
        (
            "Fadino",
            "ฟาดีโน",
            "Karuno",
            "bakers",
            "calling the rain",
            "summer",
            "a blue oval with an orange tail and a white eye",
            [
                "triangle orange .75 0 .5 .38 -90",
                "circle blue -.2 0 .75 .5",
                "circle white -.58 -.1 .14 .14",
                "crescent yellow -.1 0 .3 .36",
            ],
        ),
        (
            "Yomeka",
            "โยเมกา",
            "Vilmere",
            "smiths",
            "lighting the way",
            "autumn",
            "a tower of grey and red blocks with a black roof",
            [
                "square grey 0 .75 .8 .3",
                "square red 0 .28 .6 .3",
                "square grey 0 -.18 .42 .3",
                "triangle black 0 -.7 .5 .35",
            ],
        ),
        (
            "Sulori",
            "ซูโลรี",
            "Dosho",
            "weavers",
            "measuring salt",
            "winter",
            "a yellow crescent with a blue star",
            ["crescent yellow -.1 0 .95 .95", "star blue .4 0 .45 .45"],
        ),
        (
            "Kavunde",
            "คาวุนเด",
            "Ranpeli",
            "potters",
            "scaring birds",
            "summer",
            "a black shield with a white diamond and a red circle",
            ["heart black 0 0 .95 1", "diamond white 0 -.05 .8 .65", "circle red 0 -.05 .24 .24"],
        ),
        (
            "Mipalo",
            "มีปาโล",
            "Suvaro",
            "painters",
            "carrying water",
            "spring",
            "a green cone with a pink bar and a yellow knob",
            ["triangle green 0 .3 .8 .7 180", "square pink 0 -.22 .95 .16", "circle yellow 0 -.65 .28 .28"],
        ),
        (
            "Orutesa",
            "โอรูเตซา",
            "Melintu",
            "singers",
            "drying fish",
            "autumn",
            "two orange wings and a purple body",
            [
                "triangle orange -.5 0 .75 .52 90",
                "triangle orange .5 0 .75 .52 -90",
                "circle purple 0 0 .22 .75",
            ],
        ),
        (
            "Jelano",
            "เจลาโน",
            "Hakori",
            "bakers",
            "telling stories",
            "spring",
            "a white and a blue triangle between brown bars",
            [
                "triangle white 0 -.42 .6 .48 180",
                "triangle blue 0 .42 .6 .48",
                "square brown 0 -.88 .85 .14",
                "square brown 0 .88 .85 .14",
            ],
        ),
        (
            "Wisoba",
            "วีโซบา",
            "Zantale",
            "carvers",
            "mending nets",
            "summer",
            "a tree of green circles with red fruit",
            [
                "square brown 0 .6 .16 .5",
                "circle green -.42 0 .48 .48",
                "circle green .42 0 .48 .48",
                "circle green 0 -.45 .5 .5",
                "circle red -.4 .05 .15 .15",
                "circle red .4 .05 .15 .15",
                "circle red 0 -.45 .15 .15",
            ],
        ),
        (
            "Hazumi",
            "ฮาซูมิ",
            "Pirune",
            "sailors",
            "keeping bread",
            "winter",
            "a black wheel with white spokes and a red hub",
            [
                "circle black 0 0 .98 .98",
                "circle grey 0 0 .74 .74",
                "square white 0 0 .1 .82 45",
                "square white 0 0 .1 .82 -45",
                "circle red 0 0 .28 .28",
            ],
        ),
    )
)

# Drawn views are seen by a good camera, those on photographs by a worse one, and more from the side.
_STUDIO = things.Camera(radius=(0.32, 0.46), turn=0.4, tilt=0.12, lean=0.12, noise=(0.0, 8.0), blurs=(0.0, 0.4, 0.8))
_CAMERA = dataclasses.replace(_STUDIO, lean=0.22, noise=(3.0, 10.0), blurs=())
PHOTOGRAPHS = Path(__file__).parent / "photographs"


def draw(rng: np.random.Generator, thing: Thing, *, split: str) -> bytes:
    """One view, an encoded picture. `split` photo: on a real photograph; otherwise on a drawn background."""
    if split == "photo":
        return things.view(rng, thing, _photograph(rng), _CAMERA)
    return things.view(rng, thing, things.cluttered(rng, most=4, largest=0.15), _STUDIO)


def _photograph(rng: np.random.Generator) -> np.ndarray:
    """A part of one of the shipped photographs, [SIDE, SIDE, 3]."""
    names = sorted(path.name for path in PHOTOGRAPHS.glob("*.jpg"))
    with PIL.Image.open(PHOTOGRAPHS / str(rng.choice(names))) as opened:
        photograph = opened.convert("RGB")
    side = int(rng.uniform(0.5, 1.0) * min(photograph.size))
    left, top = (int(rng.integers(0, length - side + 1)) for length in photograph.size)
    part = photograph.resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    if rng.random() < 0.5:
        part = part.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(part, np.float32)
