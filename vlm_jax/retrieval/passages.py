"""Passages that questions are answered from: a JSONL file, checked, and what tells one state of it from another.

    {"id": "wat-arun", "title": "Wat Arun", "text": "A temple by the river …", "image": "images/wat-arun.jpg"}

`image` may be a list. Images are named relative to the file. `url` and `provenance` are for people, and not read.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.json_objects import object_of

KEYS = ("id", "text", "title", "image")
_NOTES = ("url", "provenance")


@dataclasses.dataclass(frozen=True)
class Passage:
    """Attributes:
    id: unique within its file.
    title: "" where it has none.
    images: paths of the pictures that it shows.
    """

    id: str
    text: str
    title: str = ""
    images: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What is embedded of it, and what a model is shown: the title in a line of its own, then the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    def to_json(self) -> dict[str, Any]:
        images = {"image": list(self.images)} if self.images else {}
        return {"id": self.id, **({"title": self.title} if self.title else {}), "text": self.text, **images}


def read(path: str | Path, *, images_are_there: bool = True) -> list[Passage]:
    """All passages of a file, in its order.

    Args:
      images_are_there: an image that is missing is an error.

    Raises:
      InputError: no such file, lines that are no passages, keys that are not known, an id twice, or an image that is
        not there: every error, with its line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no readable file of passages ({error}); wanted JSONL with id and text") from None
    passages, errors, seen = [], [], {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            passage = _passage(line, path.parent, images_are_there)
        except InputError as error:
            errors += [f"{where}: {reason}" for reason in error.lines]
            continue
        if passage.id in seen:
            errors.append(f"{where}: the id {passage.id!r} is that of line {seen[passage.id]} too; ids are unique")
        seen.setdefault(passage.id, number)
        passages.append(passage)
    if not passages and not errors:
        errors = [f"{path}: holds no passages"]
    if errors:
        raise InputError(errors)
    return passages


def _passage(line: str, folder: Path, images_are_there: bool) -> Passage:
    try:
        entry = json.loads(line, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is no JSON ({error})") from None
    if not isinstance(entry, dict):
        raise InputError("is no JSON object; wanted one with id and text")
    errors = [
        f"{key!r} is not a key of passages; known are {', '.join((*KEYS, *_NOTES))}"
        for key in entry
        if key not in (*KEYS, *_NOTES)
    ]
    for key, needed in (("id", True), ("text", True), ("title", False)):
        value = entry.get(key)
        if value is None and not needed:
            continue
        if not isinstance(value, str) or not value.strip():
            errors.append(f"{key!r} is {value!r}; wanted a text that is not empty")
    images = entry.get("image") or []
    images = images if isinstance(images, list) else [images]
    for image in images:
        if not isinstance(image, str) or "://" in image[:16] or image.startswith("data:"):
            errors.append(f"'image' has {str(image)[:80]!r}; wanted the path of a file, or a list of them")
        elif images_are_there and not (folder / image).is_file():
            errors.append(f"{folder / image}: no such image; correct the path")
    if errors:
        raise InputError(errors)
    return Passage(entry["id"], entry["text"], entry.get("title") or "", tuple(str(folder / one) for one in images))


def digest(passages: Sequence[Passage], folder: str | Path) -> str:
    """Tells states of passages apart by their words, their order and the names of their images, each as it lies below
    `folder`, so that a folder may be moved as a whole. What the images show is `image_digest`'s."""
    hasher = hashlib.sha256()
    for passage in passages:
        entry = passage.to_json() | {"image": [os.path.relpath(image, folder) for image in passage.images]}
        hasher.update(json.dumps(entry, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return hasher.hexdigest()


def image_digest(passages: Sequence[Passage]) -> str:
    """Of the bytes of all images, in their order."""
    hasher = hashlib.sha256()
    for passage in passages:
        for image in passage.images:
            hasher.update(hashlib.sha256(Path(image).read_bytes()).digest())
    return hasher.hexdigest()
