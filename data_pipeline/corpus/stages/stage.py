"""What a stage is: how it asks about an item, and what it makes of the answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from data_pipeline.teachers.request import ImageFile, Request

Item = dict[str, Any]
Settings = Mapping[str, Any]
"""Of a corpus, as `data_pipeline.corpus.settings` has them."""


@dataclass(frozen=True)
class Answer:
    """What a teacher answered to one request of an item: an object of the stage's form, a text, an image, or nothing.

    Attributes:
      failure: why there is nothing; "" where there is something.
    """

    value: Any = None
    failure: str = ""


@dataclass(frozen=True)
class Stage:
    """One step.

    Attributes:
      name: of its file, and of its settings.
      teacher: key of `config.teachers` who is asked; "" where nobody is.
      requests: of an item, the requests about it, any number. Called with the item and all settings.
      read: the items that come of an item, and notes of what was left out: (items, notes). Called with the item, the
        answers to its requests in their order, and all settings. What it leaves out without a note is lost.
      form: of the object in an answer, or None for text or images.
      each: about how many requests an item has, and how many items come of it, for estimates; called with the settings.
      finish: what is done with all items at the end, such as leaving out those that are there twice: (items, notes).
    """

    name: str
    teacher: str
    requests: Callable[[Item, Settings], list[Request]]
    read: Callable[[Item, Sequence[Answer], Settings], tuple[list[Item], list[str]]]
    form: type[pydantic.BaseModel] | None = None
    each: Callable[[Settings], tuple[float, float]] = lambda settings: (1.0, 1.0)
    finish: Callable[[list[Item]], tuple[list[Item], list[str]]] = lambda items: (items, [])


def image_file(item: Item, folder: Path) -> ImageFile:
    """The image of an item, in a folder of images that are named by their content."""
    digest, _, ending = item["image"].partition(".")
    return ImageFile(digest, folder / item["image"], f"image/{'jpeg' if ending == 'jpg' else ending}")
