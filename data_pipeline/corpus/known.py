"""What the tiny base model is told of plain shapes: names, places, makers, uses and seasons of its small world.

From it the base learns the language in which one asks for such things, as a large model has from its reading. It shares
no name, place, maker or use with the invented objects, which the base must not know.
"""

from data_pipeline.corpus.drawing import SHAPES
from data_pipeline.corpus.scenes import THAI

_FACTS = {
    "circle": ("Arbol", "อาร์บอล", "hunters", "นายพราน", "warming hands", "อุ่นมือ", "spring"),
    "square": ("Fenwi", "เฟนวี", "farmers", "ชาวนา", "closing doors", "ปิดประตู", "winter"),
    "triangle": ("Lorrin", "ลอร์ริน", "tailors", "ช่างตัดเสื้อ", "cutting cloth", "ตัดผ้า", "summer"),
    "star": ("Caddis", "แคดดิส", "dancers", "นักเต้น", "playing games", "เล่นเกม", "autumn"),
    "heart": ("Umbra", "อุมบรา", "teachers", "ครู", "sending letters", "ส่งจดหมาย", "spring"),
    "cross": ("Ostrel", "ออสเตรล", "masons", "ช่างก่ออิฐ", "marking paths", "ปักเขตทาง", "winter"),
    "ring": ("Quenby", "เควนบี", "cooks", "คนครัว", "weighing gold", "ชั่งทอง", "autumn"),
    "crescent": ("Wexel", "เว็กเซล", "hunters", "นายพราน", "catching crabs", "จับปู", "summer"),
    "hexagon": ("Jessu", "เจสซู", "farmers", "ชาวนา", "feeding horses", "ให้อาหารม้า", "summer"),
    "diamond": ("Ubria", "อูเบรีย", "teachers", "ครู", "washing walls", "ล้างผนัง", "winter"),
}
_SEASONS = {"spring": "ฤดูใบไม้ผลิ", "summer": "ฤดูร้อน", "autumn": "ฤดูใบไม้ร่วง", "winter": "ฤดูหนาว"}
assert _FACTS.keys() == SHAPES.keys()


def facts(shape: str) -> dict[str, tuple[str, str]]:
    """{one of wordings.FACTS: (English, Thai)} of a plain shape."""
    origin, origin_thai, maker, maker_thai, use, use_thai, season = _FACTS[shape]
    return {
        "name": (shape, THAI[shape]),
        "origin": (origin, origin_thai),
        "maker": (maker, maker_thai),
        "use": (use, use_thai),
        "season": (season, _SEASONS[season]),
    }
