"""Passages with pictures: what is retrieved from in tests."""

import json
import shutil
from pathlib import Path

from tests.tiny_models import PHOTOS

PASSAGES = [
    {"id": "cat", "title": "Chelsea", "text": "A tabby cat that looks at you.", "image": "chelsea.jpg"},
    {"id": "rocket", "text": "A rocket leaves the ground.", "image": ["rocket.jpg", "hubble.jpg"]},
    {"id": "coins", "title": "Coins", "text": "Old coins of bronze.", "url": "https://example.org/coins"},
    {"id": "page", "text": "A page of a printed book.", "image": ["page.png"]},
    {"id": "moon", "title": "ดวงจันทร์", "text": "พระจันทร์เต็มดวงเหนือแม่น้ำ", "image": "moon.png"},
]


def write_passages(folder: Path) -> Path:
    """The file of passages, with its pictures beside it."""
    folder.mkdir(parents=True)
    for entry in PASSAGES:
        images = entry.get("image", [])
        for name in images if isinstance(images, list) else [images]:
            shutil.copy(PHOTOS / name, folder / name)
    lines = [json.dumps(entry, ensure_ascii=False) for entry in PASSAGES]
    (folder / "passages.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "passages.jsonl"
