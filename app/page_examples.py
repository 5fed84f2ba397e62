"""Questions with an image to click on: of a data set, of what a run was trained on, or of the package's photographs."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import data_pipeline.corpus
from data_pipeline.sources import open_source
from dialogue import Picture, picture
from vlm_jax.errors import InputError
from vlm_jax.processing.chat import image_parts

SHOWN = 4
_LOOKED_AT = 400
"""Records of a data set of which `SHOWN` are taken, evenly."""
_PHOTOGRAPHS = Path(data_pipeline.corpus.__path__[0]) / "drawn" / "photographs"


@dataclasses.dataclass(frozen=True)
class Example:
    """A question and the picture it is about."""

    question: str
    picture: Picture


def _example(question: str, image: str | bytes) -> Example:
    """Raises InputError or OSError where the image cannot be shown."""
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return Example(question, picture("image" if isinstance(image, bytes) else Path(image).name, data))


def examples(file: str | None, model: str) -> list[Example]:
    """Up to `SHOWN` of them.

    Args:
      file: a data set of any form that training reads; None: what the run folder `model` names, where it is one and its
        data are still there, else the package's photographs.

    Raises:
      InputError: `file` cannot be read, or has no question about one image.
    """
    if file is not None:
        if found := of_data(file):
            return found
        raise InputError(f"--examples={file}: none of its first {_LOOKED_AT} records asks about one image")
    for path in _data_of(Path(model)):
        try:
            if found := of_data(path):
                return found
        except (InputError, OSError):  # moved or changed since it was trained on: there are others
            continue
    names = ("chelsea.jpg", "coffee.jpg", "rocket.jpg", "temple.jpg")
    return [_example("What is in the image?", str(_PHOTOGRAPHS / name)) for name in names[:SHOWN]]


def of_data(path: str) -> list[Example]:
    """Of a data set, the first question of records with one image."""
    source = open_source(path, training=False)
    found: list[Example] = []
    step = max(1, min(len(source), _LOOKED_AT) // SHOWN)
    for number in range(min(len(source), _LOOKED_AT)):
        # One of each stretch: neighbours in a file are often about one thing.
        if number < len(found) * step:
            continue
        with contextlib.suppress(InputError, OSError):  # that cannot be read or shown is passed over
            if (example := _of_messages(source[number].messages)) is not None:
                found.append(example)
        if len(found) == SHOWN:
            break
    return found


def _of_messages(messages: list[dict[str, Any]]) -> Example | None:
    """The first question of a conversation; None where it is not about one image."""
    first = next((one for one in messages if one["role"] == "user"), None)
    images = image_parts(messages)
    if first is None or len(images) != 1 or isinstance(first["content"], str):
        return None
    question = " ".join(part["text"] for part in first["content"] if part["type"] == "text").strip()
    return _example(question, images[0]["image"]) if question else None


def _data_of(run: Path) -> list[str]:
    """The data sets that the config of a run folder names, those it was validated with first."""
    try:
        config = json.loads((run / "config.json").read_text("utf-8"))
        named = [config["validation"]["path"], config["data"]["path"]]
    except (OSError, ValueError, KeyError, TypeError):  # no run folder
        return []
    return [path for names in named if isinstance(names, str) for path in names.split(",") if path]
