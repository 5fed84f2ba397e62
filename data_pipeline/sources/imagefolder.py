"""Hugging Face's ImageFolder: images in a folder, and `metadata.jsonl` or `.csv` naming them in `file_name`.

The other columns may be any of the forms: a table's question and answer, or a conversation.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.records import Record
from data_pipeline.sources import csv_files, json_files, table
from data_pipeline.sources.containers import Entries, Entry
from data_pipeline.sources.forms import require
from data_pipeline.sources.openai import image_format
from data_pipeline.sources.text_writers import Lines
from data_pipeline.values import json_type
from vlm_jax import locations
from vlm_jax.errors import InputError
from vlm_jax.processing.messages import is_empty

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
"""Extensions of images in folders by class."""
METADATA = ("metadata.jsonl", "metadata.csv")


class ImageFolderEntries(Entries):
    """The lines of the metadata, `file_name` under the name that the forms know."""

    def __init__(self, folder: str):
        """
        Raises:
          InputError: there is no metadata, or it cannot be read.
        """
        here = [name for name in METADATA if locations.is_file(locations.join(folder, name))]
        if not here:
            names = locations.names_in(folder)
            below = [name for name in names if any(locations.is_file(f"{folder}/{name}/{file}") for file in METADATA)]
            advice = f"; name one of its folders: {', '.join(below)}" if below else ""
            raise InputError(f"{folder}: holds neither {' nor '.join(METADATA)}{advice}")
        if len(here) > 1:
            raise InputError(f"{folder}: holds both {' and '.join(here)}; keep one of them")
        self.path = f"{folder.rstrip('/')}/{here[0]}" if locations.is_remote(folder) else os.path.join(folder, here[0])
        self._entries = json_files.open_lines(self.path) if here[0] == METADATA[0] else csv_files.open_rows(self.path)
        self._folder_name = os.path.basename(folder.rstrip("/")) or "record"
        require(self._entries, ("file_name", "file_names"), "imagefolder")

    @property
    def stem(self) -> str:
        return self._folder_name

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        entry = self._entries[index]
        if not isinstance(entry.value, Mapping):
            return entry
        row: dict[str, Any] = dict(entry.value)
        several, name = row.pop("file_names", None), row.pop("file_name", None)
        images = {"file_name": name, "file_names": several, "image": row.get("image")}
        filled = {key: one if isinstance(one, list) else [one] for key, one in images.items() if not is_empty(one)}
        if len({repr(one) for one in filled.values()}) > 1:
            named = " and ".join(f"{key!r} {images[key]!r}" for key in filled)
            return Entry(entry.number, entry.place, error=f"has {named}, which differ; keep one of them")
        name = name if is_empty(several) else several
        if not name or not isinstance(name, (str, list)):
            error = f"'file_name' is {json_type(name) if name != '' else 'empty'}; name the image, from this folder"
            return Entry(entry.number, entry.place, error=error)
        return Entry(entry.number, entry.place, {**row, "image": name})

    def place(self, index: int) -> str:
        return self._entries.place(index)


def classes_in(folder: str) -> list[str]:
    """The folders in a folder that hold images and no folders: classes, as torchvision and Hugging Face read them."""
    if locations.is_remote(folder):
        return []
    names = [name for name in locations.names_in(folder) if not name.startswith(".")]
    below = [name for name in names if os.path.isdir(os.path.join(folder, name))]
    return [name for name in below if _images_in(os.path.join(folder, name))]


def _images_in(folder: str) -> list[str]:
    return [name for name in sorted(os.listdir(folder)) if name.lower().endswith(IMAGES) and name[0] != "."]


class ClassFolderEntries(Entries):
    """Images in a folder for each class: the question is the person's, the answer is the folder's name."""

    def __init__(self, folder: str, classes: Sequence[str], question: str):
        """
        Raises:
          InputError: no question is given, or something other than classes and images is there.
        """
        self.path = folder
        if not question:
            raise InputError(
                f"{folder}: holds images in folders by class ({', '.join(classes[:8])}) and no "
                f"{' or '.join(METADATA)}; "
                "say what is asked of each, as data.question='What is this?': the answer is the folder's name"
            )
        self._names: list[tuple[str, str]] = []
        errors = []
        for name in locations.names_in(folder):
            inside = os.path.join(folder, name)
            if name.startswith("."):
                continue
            if name not in classes:
                errors.append(f"{inside}: is no folder of images, where the others are classes; move it elsewhere")
                continue
            for image in sorted(os.listdir(inside)):
                if image.startswith("."):
                    continue
                if not image.lower().endswith(IMAGES):
                    errors.append(f"{os.path.join(inside, image)}: is no image; move it out of the class's folder")
                self._names.append((name, image))
        if errors:
            raise InputError(errors)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Entry:
        name, image = self._names[index]
        value = {"id": f"{name}/{image}", "image": f"{name}/{image}", "answer": name}
        return Entry(index + 1, self.place(index), value)

    def place(self, index: int) -> str:
        return f"entry {'/'.join(self._names[index])!r}"


class ImageFolderWriter:
    """Writes rows with an image each into a folder: `metadata.jsonl`, and `images/` named by their contents."""

    def __init__(self, folder: str):
        os.makedirs(os.path.join(folder, "images"))
        self._folder = folder
        self._lines = Lines(os.path.join(folder, METADATA[0]))

    def write(self, entry: dict[str, Any]) -> None:
        image = entry["image"]
        suffix = {"JPEG": ".jpg", "TIFF": ".tif"}.get(image_format(image), f".{image_format(image).lower() or 'bin'}")
        name = f"images/{hashlib.sha256(image).hexdigest()[:20]}{suffix}"
        path = os.path.join(self._folder, name)
        if not os.path.exists(path):  # images that several records show are there once
            with open(path, "wb") as file:
                file.write(image)
        self._lines.write({"file_name": name, **{key: value for key, value in entry.items() if key != "image"}})

    def close(self) -> None:
        self._lines.close()


def to_row(record: Record) -> dict[str, Any]:
    """The record as a row.

    Raises:
      InputError: as for a table's; or it shows no image.
    """
    row = table.to_row(record)
    if not row["image"]:
        raise InputError("shows no image, and each line of an ImageFolder names one; write it as records or parquet")
    return row
