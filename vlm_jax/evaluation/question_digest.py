"""What tells one question from another that has its id and its last words: short digests of all that is shown.

The words and the images have a digest each. An image is known by what its file holds, not by where it lies: a data
folder may move, and a file whose content is replaced is another image.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import PIL.Image

from vlm_jax.locations import open_binary
from vlm_jax.processing.messages import address_of

_BYTES = 8  # of a digest: 16 characters of hexadecimal


class QuestionDigests:
    """Digests of conversations. An image that several of them show is read once, so one object is for one pass."""

    def __init__(self) -> None:
        self._by_path: dict[str, str] = {}
        self._by_object: dict[int, tuple[Any, str]] = {}  # with the object, so that its number stays its own

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """(digest of the roles, the texts and where among them images stand, digest of the images)."""
        turns, images = [], []
        for message in messages:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            turns.append([message["role"], [part["text"] if part["type"] == "text" else None for part in parts]])
            images += [self._image(address_of(part)) for part in parts if part["type"] != "text"]
        # JSON in ASCII: a text may hold half a surrogate pair, which UTF-8 cannot write.
        return _short(json.dumps(turns).encode()), _short(json.dumps(images).encode())

    def _image(self, image: Any) -> str:
        if isinstance(image, str | Path):
            name = str(image)
            if name not in self._by_path:
                self._by_path[name] = _of_address(name)
            return self._by_path[name]
        if id(image) not in self._by_object:
            self._by_object[id(image)] = (image, _of_pixels_or_bytes(image))
        return self._by_object[id(image)][1]


def _of_address(name: str) -> str:
    """Of the content of a file. What is no readable file here has its address: it cannot have been shown as it is."""
    if name.lower().startswith("data:"):
        return _short(name.encode("utf-8", "backslashreplace"))
    try:
        path = unquote(urlsplit(name).path) if name.lower().startswith("file://") else name
        with open_binary(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_BYTES)).hexdigest()
    except (OSError, ValueError):
        return f"unreadable {name}"


def _of_pixels_or_bytes(image: Any) -> str:
    if isinstance(image, bytes):
        return _short(image)
    if isinstance(image, PIL.Image.Image):
        return _short(f"{image.mode} {image.size} ".encode() + image.tobytes())
    if isinstance(image, np.ndarray):
        return _short(f"{image.dtype} {image.shape} ".encode() + image.tobytes())
    return f"unreadable {type(image).__name__}"


def _short(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_BYTES).hexdigest()


NO_IMAGES = _short(b"[]")
"""The digest of the images of a question that shows none."""
